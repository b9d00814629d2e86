"""Markers: due by the steps of their own lease, in order of arrival."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_worker.core.markers import MarkerHeap
from shared.units import SlotIndex


class Worker:
    """Steps leases and collects what becomes due."""

    def __init__(self, n_slots: int) -> None:
        self.markers: MarkerHeap[str] = MarkerHeap(n_slots)
        self.steps = np.zeros(n_slots, np.int64)
        self.worker_step = 0

    def push(self, slot: int, after: int, marker: str) -> None:
        steps = int(self.steps[slot])
        self.markers.push(SlotIndex(slot), steps + after, marker, steps=steps, worker_step=self.worker_step)

    def pending(self) -> list[int]:
        return [self.markers.pending(SlotIndex(slot)) for slot in range(len(self.steps))]

    def step(self, *slots: int) -> list[tuple[int, str]]:
        stepped = np.array(slots, np.int64)
        self.steps[stepped] += 1
        self.worker_step += 1
        return [(int(slot), marker) for slot, marker in self.markers.pop_due(stepped, self.steps, self.worker_step)]


def test_a_marker_is_due_after_so_many_steps_of_its_lease() -> None:
    worker = Worker(2)
    worker.push(0, 2, "a")
    assert [worker.step(0), worker.step(0), worker.step(0)] == [[], [(0, "a")], []]


def test_a_stalled_lease_gets_its_marker_only_when_it_has_stepped_itself() -> None:
    worker = Worker(2)
    worker.push(0, 2, "a")
    assert [worker.step(1) for _ in range(5)] == [[]] * 5
    assert [worker.step(0, 1), worker.step(1), worker.step(0)] == [[], [], [(0, "a")]]


def test_markers_due_at_once_come_in_the_order_of_arrival_whatever_was_parked() -> None:
    worker = Worker(2)
    worker.push(0, 3, "first")
    assert worker.step(1) == []
    worker.push(0, 3, "second")
    worker.push(1, 4, "other")
    assert [worker.step(1), worker.step(1), worker.step(1)] == [[], [], []]
    assert [worker.step(0), worker.step(0)] == [[], []]
    assert worker.step(0, 1) == [(0, "first"), (0, "second"), (1, "other")]


def test_a_lease_that_caught_up_does_not_overtake_one_that_waited_longer() -> None:
    worker = Worker(2)
    worker.push(0, 5, "older")
    worker.push(1, 2, "younger")
    assert [worker.step(0), worker.step(0), worker.step(0), worker.step(0, 1)] == [[]] * 4
    assert worker.step(0, 1) == [(0, "older"), (1, "younger")]


def test_a_dropped_slot_forgets_waiting_and_parked_markers() -> None:
    worker = Worker(2)
    worker.push(0, 1, "parked")
    worker.push(0, 9, "waiting")
    worker.push(1, 3, "other")
    assert worker.step(1) == []
    worker.markers.drop(SlotIndex(0))
    assert worker.pending() == [0, 1]
    assert [worker.step(0, 1), worker.step(0, 1)] == [[], [(1, "other")]]
    assert worker.pending() == [0, 0]


def test_markers_of_leases_that_ended_do_not_pile_up() -> None:
    worker = Worker(2)
    worker.push(1, 1, "kept")
    for _ in range(50):
        for number in range(20):
            worker.push(0, 1_000, str(number))
        worker.markers.drop(SlotIndex(0))
        assert len(worker.markers._heap) <= 1 + 2 * 20
    assert worker.step(1) == [(1, "kept")]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 2), st.integers(1, 5)),
        st.tuples(st.just("step"), st.sets(st.integers(0, 2)), st.none()),
        st.tuples(st.just("drop"), st.integers(0, 2), st.none()),
    ),
    max_size=60,
)


@given(ACTIONS)
def test_markers_come_exactly_when_due_and_in_order_of_arrival(actions: list[tuple[str, object, int | None]]) -> None:
    worker = Worker(3)
    pending: list[tuple[int, int, str]] = []  # (slot, due, marker) in order of arrival
    for number, (verb, subject, after) in enumerate(actions):
        match verb, subject:
            case "push", int(slot) if after is not None:
                worker.push(slot, after, str(number))
                pending.append((slot, int(worker.steps[slot]) + after, str(number)))
            case "drop", int(slot):
                worker.markers.drop(SlotIndex(slot))
                pending = [entry for entry in pending if entry[0] != slot]
            case _, set() as slots:
                came = worker.step(*sorted(slots))
                due = [entry for entry in pending if entry[1] <= worker.steps[entry[0]]]
                assert came == [(slot, marker) for slot, _, marker in due]
                pending = [entry for entry in pending if entry not in due]
        assert worker.pending() == [sum(entry[0] == slot for entry in pending) for slot in range(3)]
