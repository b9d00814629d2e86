import pytest

from asr_gateway.core.scrape import scrape_target


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("http://127.0.0.1:9000/metrics", ("127.0.0.1:9000", "http://127.0.0.1:9000/metrics")),
        ("https://w/metrics?a=http://v", ("w", "https://w/metrics?a=http://v")),
        ("a=http://w/metrics", ("a", "http://w/metrics")),
        ("ipc:///tmp/a=b/0=https://w:1/", ("ipc:///tmp/a=b/0", "https://w:1/")),
    ],
)
def test_a_source_is_a_label_and_a_url(source: str, target: tuple[str, str]) -> None:
    assert scrape_target(source) == target
