from asr_gateway.core.placement import DEATHS_WITHIN_S, Placement, Queues
from shared.messages import SessionKind
from shared.units import SessionId

LIVE, FILE = SessionKind.LIVE, SessionKind.FILE


def placement(number: int, *, kind: SessionKind = LIVE, deadline: float = 9.0, is_moving: bool = False) -> Placement:
    made = Placement(number=number, session=SessionId(number), module="asr", kind=kind, deadline=deadline)
    made.is_moving = is_moving
    return made


def test_who_is_put_back_stands_before_everybody_who_came_later() -> None:
    queues = Queues()
    first, second, third = placement(1), placement(2), placement(3)
    for each in (second, third, first):
        queues.put(each)

    order = []
    while each := queues.first_new("asr", LIVE):
        order.append(each.number)
        queues.remove(each)
    assert order == [1, 2, 3]


def test_kinds_modules_and_those_that_move_wait_apart() -> None:
    queues = Queues()
    for each in (placement(1, kind=FILE), placement(2, is_moving=True), placement(3)):
        queues.put(each)

    new = queues.first_new("asr", LIVE), queues.first_new("asr", FILE), queues.first_new("other", LIVE)
    assert [each and each.number for each in new] == [3, 1, None]
    assert [each.number for each in queues.moving("asr")] == [2]
    assert queues.moving("other") == []
    assert queues.modules_moving == ["asr"]


def test_waits_that_are_over_leave_their_queues() -> None:
    queues = Queues()
    late, moving_late = placement(1, deadline=1.0), placement(3, deadline=1.0, is_moving=True)
    for each in (late, placement(2), moving_late, placement(4, is_moving=True)):
        queues.put(each)

    assert list(queues.expire(1.0)) == [late, moving_late]
    first = queues.first_new("asr", LIVE)
    assert first is not None
    assert (first.number, [each.number for each in queues.moving("asr")]) == (2, [4])


def test_deaths_are_forgotten_in_time_and_when_the_worker_turns_out_to_live() -> None:
    session = placement(1)
    session.died("wk:a", 0.0)
    session.died("wk:b", DEATHS_WITHIN_S - 1)
    assert [worker for worker, _ in session.deaths] == ["wk:a", "wk:b"]

    session.died("wk:c", DEATHS_WITHIN_S)
    assert [worker for worker, _ in session.deaths] == ["wk:b", "wk:c"]

    session.lives("wk:b")
    assert [worker for worker, _ in session.deaths] == ["wk:c"]
