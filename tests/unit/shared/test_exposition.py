"""The text format, compared byte by byte with what moshi-server's library writes for the same counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from shared.exposition import CONTENT_TYPE, merge, render

GATEWAY = b"""\
# HELP asr_connect Number of connections to the asr.
# TYPE asr_connect counter
asr_connect{handler="all"} 5
# HELP asr_gateway_worker_up 1 while the worker is heard, else 0.
# TYPE asr_gateway_worker_up gauge
asr_gateway_worker_up{worker="tcp://a:1"} 1
"""


def worker_text(fast: int, slow: int, *, buckets: tuple[str, ...] = ("0.08", "0.1")) -> bytes:
    counts = {"0.08": fast, "0.1": fast, "0.5": fast + slow}
    lines = [f'asr_model_step_duration_bucket{{le="{bucket}"}} {counts[bucket]}' for bucket in buckets]
    return "\n".join([
        "# HELP asr_model_step_duration ASR model step duration distribution.",
        "# TYPE asr_model_step_duration histogram",
        *lines,
        f'asr_model_step_duration_bucket{{le="+Inf"}} {fast + slow}',
        f"asr_model_step_duration_sum {fast * 0.05 + slow * 0.25}",
        f"asr_model_step_duration_count {fast + slow}",
        "# HELP asr_worker_evictions_total By code.",
        "# TYPE asr_worker_evictions_total counter",
        'asr_worker_evictions_total{code="gap"} 2',
        "",
    ]).encode()  # fmt: skip


def test_the_content_type_is_the_one_of_the_text_format() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4"


def test_families_are_written_as_rusts_library_writes_them() -> None:
    registry = CollectorRegistry()
    Gauge("b_gauge", "A gauge.", registry=registry).set(-0.5)
    Counter("asr_connect", "Number of connections to the asr.", ["handler"], registry=registry).labels("all").inc(3)
    Counter("c_counter", 'Ours: "quoted" \\ and\nbroken.', ["x"], registry=registry).labels('a"\\\n').inc()
    Counter("never_labelled", "Has no series yet.", ["x"], registry=registry)
    histogram = Histogram("a_steps", "Steps.", buckets=(2, 25, 62.5), registry=registry)
    for value in (1, 2, 30, 1e6):
        histogram.observe(value)

    assert render(registry.collect()).decode() == (
        "# HELP a_steps Steps.\n"
        "# TYPE a_steps histogram\n"
        'a_steps_bucket{le="2"} 2\n'
        'a_steps_bucket{le="25"} 2\n'
        'a_steps_bucket{le="62.5"} 3\n'
        'a_steps_bucket{le="+Inf"} 4\n'
        "a_steps_sum 1000033\n"
        "a_steps_count 4\n"
        "# HELP asr_connect Number of connections to the asr.\n"
        "# TYPE asr_connect counter\n"
        'asr_connect{handler="all"} 3\n'
        "# HELP b_gauge A gauge.\n"
        "# TYPE b_gauge gauge\n"
        "b_gauge -0.5\n"
        '# HELP c_counter_total Ours: "quoted" \\\\ and\\nbroken.\n'
        "# TYPE c_counter_total counter\n"
        'c_counter_total{x="a\\"\\\\\\n"} 1\n'
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (0.02, "0.02"),
        (1e-05, "0.00001"),
        (1e20, "100000000000000000000"),
        (float("inf"), "+Inf"),
        (float("nan"), "NaN"),
    ],
)
def test_numbers_are_written_without_exponents(value: float, text: str) -> None:
    registry = CollectorRegistry()
    Gauge("g", "G.", registry=registry).set(value)

    assert render(registry.collect()).decode().splitlines()[-1] == f"g {text}"


def test_workers_are_added_up_under_moshi_servers_names_and_told_apart_under_ours() -> None:
    merged = merge(GATEWAY, {"tcp://a:1": worker_text(10, 1), "tcp://b:2": worker_text(20, 4)})

    assert merged.decode() == (
        "# HELP asr_connect Number of connections to the asr.\n"
        "# TYPE asr_connect counter\n"
        'asr_connect{handler="all"} 5\n'
        "# HELP asr_gateway_worker_up 1 while the worker is heard, else 0.\n"
        "# TYPE asr_gateway_worker_up gauge\n"
        'asr_gateway_worker_up{worker="tcp://a:1"} 1\n'
        "# HELP asr_model_step_duration ASR model step duration distribution.\n"
        "# TYPE asr_model_step_duration histogram\n"
        'asr_model_step_duration_bucket{le="0.08"} 30\n'
        'asr_model_step_duration_bucket{le="0.1"} 30\n'
        'asr_model_step_duration_bucket{le="+Inf"} 35\n'
        "asr_model_step_duration_sum 2.75\n"
        "asr_model_step_duration_count 35\n"
        "# HELP asr_worker_evictions_total By code.\n"
        "# TYPE asr_worker_evictions_total counter\n"
        'asr_worker_evictions_total{worker="tcp://a:1",code="gap"} 2\n'
        'asr_worker_evictions_total{worker="tcp://b:2",code="gap"} 2\n'
    )


def test_buckets_that_not_all_workers_have_are_left_out_of_the_sum() -> None:
    merged = merge(b"", {"a": worker_text(10, 1), "b": worker_text(20, 4, buckets=("0.08", "0.5"))}).decode()

    assert [line for line in merged.splitlines() if line.startswith("asr_model_step_duration_bucket")] == [
        'asr_model_step_duration_bucket{le="0.08"} 30',
        'asr_model_step_duration_bucket{le="+Inf"} 35',
    ]


def test_without_workers_the_text_stays_as_it_is() -> None:
    assert merge(GATEWAY, {}) == GATEWAY


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>404</html>", b"\xff\xfe\x00", b"asr_connect 3", b"# TYPE x counter\nx{ 1\nx notanumber\ny 3\n", b"#"],
)
def test_a_strangers_answer_does_not_hide_our_numbers(answer: bytes) -> None:
    assert merge(GATEWAY, {"stranger": answer}) == GATEWAY


def test_the_name_of_a_worker_is_escaped() -> None:
    merged = merge(b"", {'a"b\\': b"# TYPE x gauge\nx 1\n"})

    assert merged == b'# HELP x \n# TYPE x gauge\nx{worker="a\\"b\\\\"} 1\n'


@given(
    names=st.lists(st.text(min_size=1, max_size=8), max_size=4, unique=True),
    values=st.lists(st.floats(0, 1e12, allow_nan=False), max_size=4),
)
def test_another_reader_reads_the_numbers_that_were_counted(names: list[str], values: list[float]) -> None:
    registry = CollectorRegistry()
    gauge = Gauge("asr_unit", "Unit.", ["name"], registry=registry)
    expected = dict(zip(names, values, strict=False))
    for name, value in expected.items():
        gauge.labels(name).set(value)

    families = text_string_to_metric_families(merge(render(registry.collect()), {}).decode())

    assert {sample.labels["name"]: sample.value for family in families for sample in family.samples} == expected
