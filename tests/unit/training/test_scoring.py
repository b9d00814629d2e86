import pytest

from training.scoring import Errors, align, errors


@pytest.mark.parametrize(
    ("said", "heard", "expected"),
    [
        ("one two three", "one two three", (0, 0, 0)),
        ("one two three", "one too three", (1, 0, 0)),
        ("one two three", "one three", (0, 1, 0)),
        ("one three", "one two three", (0, 0, 1)),
        ("", "one two", (0, 0, 2)),
        ("one two", "", (0, 2, 0)),
    ],
)
def test_errors_are_counted_by_kind(said: str, heard: str, expected: tuple[int, int, int]) -> None:
    found = errors(said.split(), heard.split())
    assert (found.substitutions, found.deletions, found.insertions) == expected
    assert found.n_words == len(said.split())


def test_equal_words_are_paired() -> None:
    assert align(list("abcd"), list("bcd")) == [(0, None), (1, 0), (2, 1), (3, 2)]


def test_pooled_errors_give_a_rate_with_an_interval() -> None:
    total = Errors(n_words=300, substitutions=10) + Errors(n_words=100, deletions=5, insertions=5)
    assert (total.n_words, total.total, total.rate) == (400, 20, 0.05)
    assert total.half_width == pytest.approx(0.0214, abs=1e-3)


def test_no_error_still_has_an_interval() -> None:
    assert 0 < Errors(n_words=100).half_width < 0.02
