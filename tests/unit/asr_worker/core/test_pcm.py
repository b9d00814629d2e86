"""PCM rings: whole frames, first in, first out, for any mixture of slots."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_worker.core.pcm import PcmRings, rank_among_equals
from shared.units import FRAME_SAMPLES, SlotIndex


def frames(*values: float) -> NDArray[np.float32]:
    return np.repeat(np.array(values, np.float32)[:, None], FRAME_SAMPLES, axis=1)


def test_ranks_count_equal_values_that_stand_before() -> None:
    assert rank_among_equals(np.array([5, 2, 5, 5, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert rank_among_equals(np.zeros(0, np.int64)).tolist() == []


def test_each_slot_gets_its_own_frames_back_in_order() -> None:
    rings = PcmRings(3, 4)
    rings.push(np.array([0, 2, 0]), frames(1, 2, 3), now=10.0)
    rings.push(np.array([2]), frames(4), now=11.0)
    assert rings.count.tolist() == [2, 0, 2]
    out = np.zeros((3, FRAME_SAMPLES), np.float32)
    rings.pop(np.array([0, 2]), out)
    assert out[:, -1].tolist() == [1, 0, 2]
    rings.pop(np.array([0, 2]), out)
    assert out[:, 0].tolist() == [3, 0, 4]
    assert rings.count.tolist() == [0, 0, 0]


def test_the_oldest_waiting_frame_tells_when_it_arrived() -> None:
    rings = PcmRings(2, 4)
    rings.push(np.array([0]), frames(1), now=10.0)
    rings.push(np.array([0, 1]), frames(2, 3), now=11.0)
    assert (rings.oldest_s(np.array([0, 1])), rings.oldest_s(np.array([1]))) == (10.0, 11.0)
    assert rings.oldest_s(np.zeros(0, np.int64)) is None


def test_a_cleared_ring_is_empty_and_takes_a_whole_window() -> None:
    rings = PcmRings(1, 3)
    rings.push(np.array([0, 0]), frames(1, 2), now=0.0)
    rings.clear(SlotIndex(0))
    rings.push(np.array([0, 0, 0]), frames(7, 8, 9), now=0.0)
    out = np.zeros((1, FRAME_SAMPLES), np.float32)
    came = []
    while rings.count[0]:
        rings.pop(np.array([0]), out)
        came.append(float(out[0, 0]))
    assert came == [7, 8, 9]


@given(st.lists(st.one_of(st.lists(st.integers(0, 2), max_size=6), st.sets(st.integers(0, 2))), max_size=30))
def test_rings_are_queues(actions: list[list[int] | set[int]]) -> None:
    """A list is a block to push, a set the slots to pop; what has no room or no frame is left out."""
    rings = PcmRings(3, 5)
    queues: list[list[float]] = [[], [], []]
    number = 0.0
    for action in actions:
        if isinstance(action, list):
            pushed = [slot for place, slot in enumerate(action) if len(queues[slot]) + action[:place].count(slot) < 5]
            values = [number + place for place in range(len(pushed))]
            number += len(pushed)
            rings.push(np.array(pushed, np.int64), frames(*values), now=0.0)
            for slot, value in zip(pushed, values, strict=True):
                queues[slot].append(value)
        else:
            slots = sorted(slot for slot in action if queues[slot])
            out = np.full((3, FRAME_SAMPLES), -1, np.float32)
            rings.pop(np.array(slots, np.int64), out)
            assert [float(out[slot, 100]) for slot in slots] == [queues[slot].pop(0) for slot in slots]
        assert rings.count.tolist() == [len(queue) for queue in queues]
