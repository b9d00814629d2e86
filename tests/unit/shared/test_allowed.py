from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.allowed import Choice, Expanded, Kind, NotAllowedError, Range, Shape, kinds_of

PORT = Kind(base=int, limits=Range(0, 65_535))
SHARE = Kind(base=float, limits=Range(0.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Example:
    plain: int
    limited: Annotated[int, Range(1, 9)] = 3
    perhaps: Annotated[float, Range(0.0, above=True)] | None = None
    listed: tuple[Annotated[str, Choice(("a", "b"))], ...] = ()
    folder: Annotated[str, Shape(r"[^ ]+", "no spaces"), Expanded()] = "x"
    nested: dict[str, int] = field(default_factory=dict)
    path: Path = Path()


def test_kinds_are_read_from_annotations() -> None:
    assert dict(kinds_of(Example)) == {
        "plain": Kind(base=int),
        "limited": Kind(base=int, limits=Range(1, 9)),
        "perhaps": Kind(base=float, limits=Range(0.0, above=True)),
        "listed": Kind(base=str, many=True, limits=Choice(("a", "b"))),
        "folder": Kind(base=str, limits=Shape(r"[^ ]+", "no spaces"), expanded=True),
    }


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Kind(base=int), "an integer"),
        (Kind(base=bool), "true or false"),
        (PORT, "an integer from 0 to 65535"),
        (Kind(base=int, limits=Range(0, (1 << 63) - 1)), "an integer from 0 to 9223372036854775807"),
        (Kind(base=float, limits=Range(0.0)), "a number of at least 0"),
        (Kind(base=float, limits=Range(0.0, above=True)), "a number above 0"),
        (Kind(base=float, limits=Range(0.0, 2.5, above=True)), "a number above 0 and at most 2.5"),
        (Kind(base=str, limits=Choice(("a", "b"))), 'one of "a", "b"'),
        (Kind(base=int, many=True, limits=Range(1)), "a list, each item an integer of at least 1"),
    ],
)
def test_a_kind_says_what_it_allows(kind: Kind, words: str) -> None:
    assert str(kind) == words


def test_an_integer_becomes_a_number_where_one_is_meant_but_not_the_other_way() -> None:
    assert (SHARE.from_toml(1), type(SHARE.from_toml(1))) == (1.0, float)
    for kind, value in [(PORT, 1.0), (PORT, True), (SHARE, False), (SHARE, "1"), (SHARE, 10**400), (PORT, None)]:
        with pytest.raises(NotAllowedError):
            kind.from_toml(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_finite_number_is_never_allowed(value: float) -> None:
    for kind in (Kind(base=float), SHARE, Kind(base=float, limits=Range(0.0))):
        with pytest.raises(NotAllowedError):
            kind.from_toml(value)


@given(st.integers(-(1 << 70), 1 << 70))
def test_a_port_is_read_from_text_exactly_if_it_is_one(value: int) -> None:
    if 0 <= value <= 65_535:
        assert PORT.from_text(str(value)) == value
    else:
        with pytest.raises(NotAllowedError):
            PORT.from_text(str(value))


def test_the_low_end_of_a_range_may_be_left_out() -> None:
    above = Kind(base=float, limits=Range(0.0, above=True))

    assert above.from_toml(1e-9) == 1e-9
    with pytest.raises(NotAllowedError):
        above.from_toml(0.0)


def test_truth_is_read_from_the_usual_words() -> None:
    kind = Kind(base=bool)

    assert [kind.from_text(text) for text in ("1", "True", "yes", "ON")] == [True] * 4
    assert [kind.from_text(text) for text in ("0", "false", "No", "off")] == [False] * 4
    with pytest.raises(NotAllowedError):
        kind.from_text("maybe")


def test_a_shape_must_fit_the_whole_text() -> None:
    kind = Kind(base=str, limits=Shape(r"cuda(:\d+)?", "a device"))

    assert kind.from_text("cuda:1") == "cuda:1"
    for text in ("cuda:", " cuda", "cuda\n"):
        with pytest.raises(NotAllowedError):
            kind.from_text(text)


def test_a_list_in_a_text_stands_between_commas() -> None:
    kind = Kind(base=int, many=True, limits=Range(1))

    assert kind.from_text("1, 2,3,") == (1, 2, 3)
    for text in ("1,0", "1,x"):
        with pytest.raises(NotAllowedError):
            kind.from_text(text)
