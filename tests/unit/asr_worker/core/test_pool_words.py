"""From tokens to events, with tokens that no fake model would say: the first steps, resets, times, order."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asr_worker.core.model import StepResult
from asr_worker.core.words import WordEnded, WordEvent, WordSaid
from shared.messages import EventKind

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported
Say = Callable[..., None]

D = 4


@pytest.fixture
def worker(make_worker: Fixture) -> Fixture:
    worker = make_worker(delay_frames=D)
    worker.open(1)
    worker.open(2)
    return worker


@pytest.fixture
def say(worker: Fixture) -> Say:
    """Return a function that steps one frame of session 1 for each of the tokens; session 2 always says 9."""

    def step(*tokens: int, first: int = 0) -> None:
        for place, token in enumerate(tokens):
            assert worker.send(1, np.zeros((1, 1920), np.float32), first + place) == []
            assert worker.pool.settle() == []
            assert worker.pool.plan() is not None
            result = StepResult(
                text=np.array([token, 9, 9]), codes=np.zeros((3, 8), np.int64), pauses=np.zeros((3, 4), np.float32)
            )
            worker.keep(worker.pool.spread(result, 0.01))

    return step


def piece(token: int) -> str:
    """Return the text of a piece, as the fake model spells it."""
    return {4: "ba", 5: "bak", 6: "bal"}[token]


@pytest.mark.parametrize(
    ("tokens", "events"),
    [
        # The first D - 1 steps do not count.
        ([4, 4, 4, 3, 3], []),
        ([0, 4, 4, 5, 3], [WordSaid(piece(5), 0.0)]),
        # The token of step D stands at time 0, each further one 80 ms later.
        ([3, 3, 3, 0, 4, 3, 0], [WordSaid(piece(4), 0.0), WordEnded(3 / 12.5)]),
        ([3, 3, 3, 3, 0, 4, 0, 5, 0], [
            WordSaid(piece(4), 1 / 12.5), WordEnded(3 / 12.5), WordSaid(piece(5), 3 / 12.5), WordEnded(5 / 12.5),
        ]),
        ([3, 3, 3, 4, 5, 3], [WordSaid(piece(4) + piece(5), 0.0)]),
    ],
)  # fmt: skip
def test_tokens_become_words_with_times(worker: Fixture, say: Say, tokens: list[int], events: list[WordEvent]) -> None:
    say(*tokens)
    assert worker.words(1) == events
    assert worker.words(2) == []


def test_words_come_before_the_marker_of_the_same_step(worker: Fixture, say: Say) -> None:
    say(3, 3, 3, 4)
    worker.marker(1, 7, 4)
    say(5, 3, 3, 0, first=4)
    assert [event.kind for event in worker.events[1, 1]] == [EventKind.WORD, EventKind.END_WORD, EventKind.MARKER]


def test_after_a_reset_in_mid_stream_the_first_steps_do_not_count_again(worker: Fixture, say: Say) -> None:
    say(3, 3, 3, 0, 4)
    worker.reset(1, 1, 5)
    worker.run()
    assert worker.answers(1) == [(EventKind.RESET_DONE, 1)]
    say(5, 0, 0, 3, 6, 3, 0, first=5)
    # The piece of before is gone; the word after it counts from the reset, at frame 5.
    assert worker.words(1) == [WordSaid(piece(6), 5 / 12.5), WordEnded((12 - D) / 12.5)]


def test_an_init_begins_time_and_delay_anew(worker: Fixture, say: Say) -> None:
    say(3, 3, 3, 0, 4)
    worker.reset(1, None, 5, restart=True)
    say(5, 0, 0, 0, 6, 3, 0, first=5)
    assert worker.words(1) == [WordSaid(piece(6), 0.0), WordEnded(3 / 12.5)]


def test_a_flush_waits_for_the_end_of_a_word_but_not_for_ever(worker: Fixture) -> None:
    """Pieces without an end: D silent frames, 12 more, then it is over."""
    worker.flush(1, 3, 0)
    n_steps = 0
    while worker.pool.settle() == [] and worker.pool.plan() is not None:
        n_steps += 1
        result = StepResult(
            text=np.array([4, 9, 9]), codes=np.zeros((3, 8), np.int64), pauses=np.zeros((3, 4), np.float32)
        )
        worker.keep(worker.pool.spread(result, 0.01))
    assert (n_steps, worker.answers(1)) == (D + 12, [(EventKind.FLUSHED, 3)])
