"""Who is served: sessions are found within their gateway, the silent are given up."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from asr_worker.core.gateways import UNKNOWN, Gateway, GatewayTable, OnceInAWhile
from shared.units import SessionId, SlotIndex


@given(st.dictionaries(st.integers(0, 40), st.integers(0, 9)), st.lists(st.integers(0, 40)))
def test_sessions_are_found_in_their_slots(held: dict[int, int], asked: list[int]) -> None:
    gateway = Gateway(b"gw", 1)
    for session, slot in held.items():
        gateway.add(SessionId(session), SlotIndex(slot))
    assert gateway.find(np.array(asked, np.int64)).tolist() == [held.get(session, UNKNOWN) for session in asked]
    for session in list(held)[::2]:
        gateway.remove(SessionId(session))
        del held[session]
    assert gateway.find(np.array(asked, np.int64)).tolist() == [held.get(session, UNKNOWN) for session in asked]


def test_a_gateway_that_comes_back_has_another_number() -> None:
    table = GatewayTable(5.0)
    first = table.enter(b"a", 0.0)
    assert first is not None
    assert table.enter(b"a", 1.0) is first
    table.leave(first)
    again = table.enter(b"a", 2.0)
    assert again is not None
    assert (again.number, list(table), table.numbered(again.number)) == (first.number + 1, [again], again)


def test_who_is_silent_for_too_long_is_named_once() -> None:
    table = GatewayTable(5.0)
    gateways = {name: table.enter(name, 0.0) for name in (b"a", b"b")}
    assert gateways[b"b"] is not None
    table.heard_from(gateways[b"b"], 3.0)
    assert (table.next_deadline(), table.expired(4.9)) == (5.0, [])
    assert table.expired(5.0) == [gateways[b"a"]]
    assert (table.expired(7.9), table.next_deadline()) == ([], 8.0)


def test_once_in_a_while_is_once_in_each_period_for_each_key() -> None:
    told = OnceInAWhile(1.0)
    asked = [((1,), 0.0), ((1,), 0.9), ((2,), 0.9), ((1,), 1.0), ((1,), 1.9)]
    assert [told.allows(key, now) for key, now in asked] == [True, False, True, True, False]


def test_a_flood_of_keys_pushes_out_the_oldest() -> None:
    told = OnceInAWhile(1.0, max_keys=2)
    assert [told.allows((key,), 0.0) for key in (1, 2, 3, 1, 3)] == [True, True, True, True, False]
