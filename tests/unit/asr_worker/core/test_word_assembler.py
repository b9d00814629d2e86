"""The word rules, token by token (docs/model.md, section 7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_worker.core.words import MAX_PIECES, MAX_WORD_CHARS, WordAssembler, WordEnded, WordEvent, WordSaid


def spell(tokens: list[int]) -> str:
    return "-".join(map(str, tokens))


def said(tokens: list[int], start_s: float = 0.0) -> list[WordEvent]:
    """Feed one token a second, the first at 1 s."""
    words = WordAssembler(spell, start_s)
    return [event for place, token in enumerate(tokens, 1) for event in words.feed(token, float(place))]


@pytest.mark.parametrize(
    ("tokens", "events"),
    [
        ([3, 3, 3], []),
        ([0, 0], []),
        ([41, 17], []),
        ([41, 17, 3], [WordSaid("41-17", 0.0)]),
        ([0, 41, 3, 3, 0], [WordSaid("41", 1.0), WordEnded(5.0)]),
        ([0, 41, 0], [WordSaid("41", 1.0), WordEnded(3.0)]),
        ([1, 2, 3], [WordSaid("1-2", 0.0)]),
        # Two words without a 0 between them start together and share one end.
        ([0, 41, 3, 42, 3, 0], [WordSaid("41", 1.0), WordSaid("42", 1.0), WordEnded(6.0)]),
        ([41, 0, 42, 3, 0, 0], [WordSaid("41", 0.0), WordEnded(2.0), WordSaid("42", 2.0), WordEnded(5.0)]),
    ],
)
def test_tokens_become_words(tokens: list[int], events: list[WordEvent]) -> None:
    assert said(tokens) == events


def test_after_a_reset_in_mid_stream_the_first_word_counts_from_there() -> None:
    assert said([41, 3], start_s=0.5) == [WordSaid("41", 0.5)]


def test_a_word_is_open_from_its_first_piece_to_its_end() -> None:
    words = WordAssembler(spell)
    states = []
    for token in (3, 41, 3, 3, 0):
        words.feed(token, 0.0)
        states.append((words.has_pieces, words.is_open))
    assert states == [(False, False), (True, True), (False, True), (False, True), (False, False)]


def test_a_model_that_never_ends_a_word_is_cut_short() -> None:
    (word,) = said([7] * MAX_PIECES)
    assert word == WordSaid("-".join("7" * MAX_PIECES), 0.0)
    assert said([7] * (MAX_PIECES - 1)) == []


def test_where_each_piece_is_a_word_it_is_said_at_once() -> None:
    words = WordAssembler(spell, most_pieces=1)
    events = [words.feed(token, float(place)) for place, token in enumerate((0, 41, 3, 0, 42, 0), 1)]
    assert events == [[], [WordSaid("41", 1.0)], [], [WordEnded(4.0)], [WordSaid("42", 4.0)], [WordEnded(6.0)]]
    assert not words.is_open


def test_a_text_too_long_for_the_link_is_cut() -> None:
    words = WordAssembler(lambda _: "x" * (MAX_WORD_CHARS + 1))
    words.feed(9, 0.0)
    assert words.feed(3, 0.0) == [WordSaid("x" * MAX_WORD_CHARS, 0.0)]


@given(st.lists(st.sampled_from([0, 3, 7, 8]), max_size=40))
def test_no_piece_is_lost_or_said_twice_and_every_end_follows_a_word(tokens: list[int]) -> None:
    events = said([*tokens, 0])
    assert [piece for event in events if isinstance(event, WordSaid) for piece in event.text.split("-")] == [
        str(token) for token in tokens if token in (7, 8)
    ]
    for before, event in zip([None, *events], events, strict=False):
        if isinstance(event, WordEnded):
            assert isinstance(before, WordSaid)
            assert before.start_s < event.stop_s
