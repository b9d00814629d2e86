"""Slots: lowest first, each leased once, no ended lease ever current again."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from asr_worker.core.slots import Lease, SlotAllocator, StaleLeaseError


def test_the_lowest_free_slot_is_leased_first() -> None:
    slots = SlotAllocator(4)
    leases = [slots.acquire() for _ in range(4)]
    assert [lease.slot for lease in leases if lease] == [0, 1, 2, 3]
    for index in (3, 1, 2):
        lease = leases[index]
        assert lease is not None
        slots.release(lease)
    again = [slots.acquire() for _ in range(3)]
    assert [lease.slot for lease in again if lease] == [1, 2, 3]


def test_nothing_is_leased_when_all_slots_are_taken() -> None:
    slots = SlotAllocator(1)
    assert slots.acquire() is not None
    assert slots.acquire() is None


def test_release_twice_raises_stale_lease() -> None:
    slots = SlotAllocator(2)
    lease = slots.acquire()
    assert lease is not None
    slots.release(lease)
    with pytest.raises(StaleLeaseError, match="slot 0 is at generation 2"):
        slots.release(lease)


def test_a_renewed_lease_keeps_its_slot_and_ends_the_old_one() -> None:
    slots = SlotAllocator(2)
    old = slots.acquire()
    assert old is not None
    new = slots.renew(old)
    assert (new.slot, slots.is_current(old), slots.is_current(new)) == (old.slot, False, True)
    with pytest.raises(StaleLeaseError):
        slots.renew(old)


def test_a_pool_without_slots_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 slot, not 0"):
        SlotAllocator(0)


class SlotsMachine(RuleBasedStateMachine):
    """Every row is free or leased once; what has ended stays ended."""

    current = Bundle("current")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.slots = SlotAllocator(5)
        self.leased: dict[int, Lease] = {}

    @rule(target=current)
    def acquire(self) -> object:
        lease = self.slots.acquire()
        free = set(range(5)) - set(self.leased)
        if lease is None:
            assert not free
            return multiple()
        assert lease.slot == min(free)
        self.leased[lease.slot] = lease
        return lease

    @rule(target=ended, lease=consumes(current))
    def release(self, lease: Lease) -> Lease:
        self.slots.release(lease)
        del self.leased[lease.slot]
        return lease

    @rule(target=current, lease=consumes(current))
    def renew(self, lease: Lease) -> Lease:
        renewed = self.slots.renew(lease)
        assert not self.slots.is_current(lease)
        self.leased[lease.slot] = renewed
        return renewed

    @rule(lease=ended, renews=st.booleans())
    def use_an_ended_lease(self, lease: Lease, renews: bool) -> None:  # noqa: FBT001  (drawn by Hypothesis)
        with pytest.raises(StaleLeaseError):
            _ = self.slots.renew(lease) if renews else self.slots.release(lease)

    @invariant()
    def counts_agree(self) -> None:
        assert self.slots.n_used == len(self.leased)
        assert self.slots.n_free + self.slots.n_used == self.slots.n_slots == 5
        assert all(self.slots.is_current(lease) for lease in self.leased.values())
        assert [self.slots.generations[lease.slot] for lease in self.leased.values()] == [
            lease.generation for lease in self.leased.values()
        ]


TestSlotsMachine = SlotsMachine.TestCase
