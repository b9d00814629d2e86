from random import Random

from asr_gateway.core.fleet import Fleet
from asr_gateway.core.fleet_actions import (
    DropWorker,
    EndSession,
    FleetAction,
    MoveSession,
    OpenSlot,
    RefuseSession,
    ReserveSlot,
)
from asr_gateway.core.workers import ANSWER_S, FIRST_LOAD_S, ModuleLoad
from shared.config import GatewayConfig
from shared.messages import REJECT_DRAINING, REJECT_FULL, REJECT_RESUME, Load, SessionKind, Welcome
from shared.units import SessionId

LIVE, FILE = SessionKind.LIVE, SessionKind.FILE
A, B, C = "tcp://a:1", "tcp://b:1", "tcp://c:1"


def facts(name: str = "wk:a", *, n_sessions: int = 4, module: str = "asr", fingerprint: str = "f") -> Welcome:
    return Welcome(
        version=1,
        worker=name,
        module=module,
        fingerprint=fingerprint,
        n_sessions=n_sessions,
        n_heads=4,
        n_codebooks=8,
        delay_frames=6,
        context_frames=750,
        codec_context_frames=250,
        window_frames=25,
        device="fake",
        dtype="f32",
    )


def load(free: int, *, used: int = 0, draining: bool = False, deadline_s: float = 0.6) -> Load:
    return Load(
        used=used, free=free, draining=draining, steps=0, step_p50_ms=1.0, step_p99_ms=1.0, deadline_s=deadline_s
    )


def fleet(config: GatewayConfig | None = None, **workers: int) -> Fleet:
    """A fleet at time 0 whose workers ``a``, ``b`` ... have so many free slots."""
    made = Fleet(config or GatewayConfig(), Random(1))
    for name, n_sessions in workers.items():
        made.welcomed(f"tcp://{name}:1", facts(f"wk:{name}", n_sessions=n_sessions), 0.0)
    return made


def request(of: Fleet, session: int, *, now: float = 0.0, kind: SessionKind = LIVE, module: str = "asr") -> list[str]:
    return shown(of.opened(SessionId(session), module, kind, now))


def shown(actions: list[FleetAction]) -> list[str]:
    """Actions as short texts: lists against lists."""
    return [_shown(action) for action in actions]


def _shown(action: FleetAction) -> str:
    match action:
        case OpenSlot():
            return f"open {action.session} on {action.worker[6]}"
        case RefuseSession():
            return f"refuse {action.session}: {action.error.code}"
        case EndSession():
            return f"end {action.session}: {action.error.code}"
        case ReserveSlot():
            return f"reserve {action.session} on {action.worker[6]}"
        case MoveSession():
            return f"move {action.session}{' off' if action.has_reserved else ''}"
        case DropWorker():
            return f"drop {action.worker[6]}"


# --- placement --------------------------------------------------------------------------------------------


def test_a_session_is_opened_on_a_worker_of_its_module() -> None:
    mixed = fleet(a=1)
    mixed.welcomed(B, facts("wk:b", module="other"), 0.0)

    assert request(mixed, 1, module="other") == ["open 1 on b"]
    assert request(mixed, 2) == ["open 2 on a"]


def test_of_two_workers_the_one_with_more_free_slots_gets_the_session() -> None:
    pair = fleet(a=1, b=4)

    assert [request(pair, n) for n in range(3)] == [["open 0 on b"], ["open 1 on b"], ["open 2 on b"]]


def test_of_many_workers_two_are_drawn_and_the_better_is_taken() -> None:
    many = fleet(a=8, b=8, c=1)

    opened = [request(many, n)[0][-1] for n in range(8)]

    assert set(opened) == {"a", "b"}


def test_a_draining_worker_gets_nothing() -> None:
    lone = fleet(a=4)
    lone.loaded(A, load(4, draining=True), 0.0)

    assert request(lone, 1) == []


def test_a_load_counts_the_opens_that_it_cannot_know_of() -> None:
    lone = fleet(a=2)
    request(lone, 1)
    lone.loaded(A, load(2), 0.01)

    assert request(lone, 2) == ["open 2 on a"]
    assert request(lone, 3) == []


# --- the queue --------------------------------------------------------------------------------------------


def test_a_live_session_is_refused_before_clients_take_silence_for_ready() -> None:
    # A public load generator streams when 0.2 s brought neither Ready nor Error, and then counts a refusal as a fault.
    lone = fleet(a=1)
    request(lone, 1)
    lone.granted(SessionId(1), A)

    assert request(lone, 2, now=1.0) == []
    assert shown(lone.expire(1.14)) == []
    assert shown(lone.expire(1.16)) == ["refuse 2: no_free_slot"]


def test_the_refusal_has_the_text_that_clients_compare() -> None:
    empty = fleet()
    request(empty, 1)

    (refusal,) = empty.expire(0.2)

    assert isinstance(refusal, RefuseSession)
    assert str(refusal.error) == "no free channels"


def test_a_slot_that_becomes_free_goes_to_who_came_first() -> None:
    lone = fleet(a=1)
    request(lone, 1)
    lone.granted(SessionId(1), A)
    request(lone, 2)
    request(lone, 3)
    lone.released(SessionId(1))

    assert shown(lone.freed(A, 0.1)) == ["open 2 on a"]
    assert shown(lone.freed(A, 0.1)) == ["open 3 on a"]


def test_live_sessions_go_before_files_that_wait_longer() -> None:
    lone = fleet(a=1)
    request(lone, 1)
    request(lone, 2, kind=FILE)
    request(lone, 3)

    assert shown(lone.freed(A, 0.1)) == ["open 3 on a"]


def test_files_wait_for_a_hundred_seconds() -> None:
    empty = fleet()

    assert [request(empty, n, kind=FILE) for n in range(2)] == [[], []]
    assert shown(empty.expire(99.9)) == []
    assert shown(empty.expire(100.0)) == ["refuse 0: no_free_slot", "refuse 1: no_free_slot"]


def test_who_leaves_the_queue_is_skipped() -> None:
    empty = fleet()
    request(empty, 1)
    request(empty, 2)

    empty.released(SessionId(1))
    assert shown(empty.welcomed(A, facts(), 0.1)) == ["open 2 on a"]


def test_waiting_sessions_are_served_when_a_worker_joins() -> None:
    empty = fleet()
    request(empty, 1)
    request(empty, 2)

    assert shown(empty.welcomed(A, facts(n_sessions=1), 0.1)) == ["open 1 on a"]


# --- the worker has the last word -------------------------------------------------------------------------


def test_a_rejected_session_is_opened_on_another_worker() -> None:
    pair = fleet(a=4, b=2)
    request(pair, 1)

    assert shown(pair.rejected(SessionId(1), REJECT_FULL, 0, 0.0)) == ["open 1 on b"]


def test_a_rejected_session_waits_on_at_its_place_in_the_queue() -> None:
    lone = fleet(a=2)
    request(lone, 1)
    request(lone, 2)
    request(lone, 3)

    assert shown(lone.rejected(SessionId(2), REJECT_FULL, 0, 0.05)) == []
    assert shown(lone.rejected(SessionId(1), REJECT_FULL, 0, 0.05)) == []
    assert shown(lone.loaded(A, load(3), 0.1)) == ["open 1 on a", "open 2 on a", "open 3 on a"]


def test_a_worker_that_rejects_files_still_gets_live_sessions() -> None:
    lone = fleet(a=4)
    request(lone, 1, kind=FILE)

    assert shown(lone.rejected(SessionId(1), REJECT_FULL, 3, 0.0)) == []
    assert request(lone, 2) == ["open 2 on a"]


def test_a_worker_that_rejects_files_is_asked_once_a_second_and_not_with_every_load() -> None:
    lone = fleet(a=4)
    lone.loaded(A, load(4), 0.0)
    request(lone, 1, kind=FILE)
    lone.rejected(SessionId(1), REJECT_FULL, 3, 0.1)

    assert shown(lone.loaded(A, load(3, used=1), 0.15)) == []
    assert shown(lone.loaded(A, load(2, used=2), 1.0)) == []
    assert shown(lone.loaded(A, load(2, used=2), 1.1)) == ["open 1 on a"]


def test_a_worker_that_rejected_a_file_is_asked_again_when_a_session_ends() -> None:
    lone = fleet(a=4)
    lone.loaded(A, load(2, used=2), 0.0)
    request(lone, 1, kind=FILE)
    lone.rejected(SessionId(1), REJECT_FULL, 2, 0.1)

    assert shown(lone.loaded(A, load(3, used=1), 0.15)) == ["open 1 on a"]
    lone.rejected(SessionId(1), REJECT_FULL, 3, 0.2)
    assert shown(lone.freed(A, 0.25)) == ["open 1 on a"]


def test_a_worker_that_rejected_a_live_session_may_have_room_with_its_next_load() -> None:
    lone = fleet(a=4)
    request(lone, 1)
    lone.rejected(SessionId(1), REJECT_FULL, 0, 0.1)

    assert shown(lone.loaded(A, load(1), 0.15)) == ["open 1 on a"]


def test_a_worker_that_drains_gets_nothing_more() -> None:
    lone = fleet(a=4)
    request(lone, 1)

    assert shown(lone.rejected(SessionId(1), REJECT_DRAINING, 4, 0.0)) == []
    assert request(lone, 2, kind=FILE) == []


def test_a_worker_that_does_not_answer_costs_the_session_two_seconds() -> None:
    lone = fleet(a=4)
    request(lone, 1)
    lone.loaded(A, load(4, deadline_s=10.0), 0.0)

    assert shown(lone.expire(ANSWER_S - 0.1)) == []
    assert shown(lone.expire(ANSWER_S)) == ["refuse 1: no_free_slot"]


def test_a_file_waits_for_a_slow_worker_as_long_as_that_may_be_silent_and_then_in_the_queue() -> None:
    lone = fleet(a=4)
    lone.loaded(A, load(4, deadline_s=10.0), 0.0)
    request(lone, 1, kind=FILE)
    request(lone, 2)

    assert shown(lone.expire(9.9)) == ["refuse 2: no_free_slot"]
    assert shown(lone.expire(10.0)) == []
    assert shown(lone.loaded(A, load(4, deadline_s=10.0), 11.0)) == ["open 1 on a"]


def test_a_file_that_no_worker_answers_waits_no_longer_than_any_other() -> None:
    lone = fleet(a=4)
    lone.loaded(A, load(4, deadline_s=90.0), 0.0)
    request(lone, 1, kind=FILE)

    assert shown(lone.expire(90.0)) == []
    assert shown(lone.expire(100.0)) == ["refuse 1: no_free_slot"]


def test_a_session_without_an_answer_is_opened_on_another_worker_though_its_wait_is_over() -> None:
    pair = fleet(a=4, b=2)
    pair.loaded(A, load(4), 0.0)
    assert request(pair, 1) == ["open 1 on a"]

    assert shown(pair.expire(0.4)) == []
    assert shown(pair.expire(0.41)) == ["open 1 on b"]


def test_a_worker_that_owes_an_answer_is_asked_for_nothing_until_it_is_heard() -> None:
    pair = fleet(a=4, b=2)
    pair.loaded(A, load(4), 0.0)
    request(pair, 1)
    pair.expire(0.41)

    assert request(pair, 2, now=0.5) == ["open 2 on b"]
    assert request(pair, 3, now=0.5, kind=FILE) == []
    assert shown(pair.loaded(A, load(4), 0.6)) == ["open 3 on a"]


def test_sessions_without_an_answer_keep_their_order() -> None:
    lone = fleet(a=4)
    for n in (1, 2):
        request(lone, n, kind=FILE)
    lone.expire(2.0)
    request(lone, 3, kind=FILE, now=2.0)

    assert shown(lone.loaded(A, load(4), 2.1)) == ["open 1 on a", "open 2 on a", "open 3 on a"]


def test_a_late_answer_is_taken_while_nobody_else_was_asked() -> None:
    lone = fleet(a=4)
    request(lone, 1, kind=FILE)
    lone.expire(2.0)

    lone.granted(SessionId(1), A)

    assert shown(lone.loaded(A, load(3), 2.1)) == []
    assert shown(lone.lost(A, 2.2)) == ["move 1"]


def test_no_answer_is_missed_by_a_loop_that_did_not_listen() -> None:
    lone = fleet(a=4)
    lone.expire(0.0)
    request(lone, 1)

    assert shown(lone.expire(3.0)) == []
    lone.granted(SessionId(1), A)
    assert shown(lone.expire(3.05)) == []


# --- life and death of workers ----------------------------------------------------------------------------


def test_sessions_of_a_lost_worker_come_before_those_that_wait_for_their_first_slot() -> None:
    pair = fleet(a=4, b=1)
    request(pair, 1)
    pair.granted(SessionId(1), A)
    request(pair, 2)

    assert shown(pair.lost(A, 0.1)) == ["move 1", "open 1 on b"]
    assert shown(pair.lost(A, 0.1)) == []


def test_sessions_of_a_worker_that_drained_and_went_are_told_that_it_restarts() -> None:
    lone = fleet(a=4)
    request(lone, 1)
    lone.granted(SessionId(1), A)
    lone.loaded(A, load(3, draining=True), 0.0)

    assert shown(lone.lost(A, 0.1)) == ["move 1"]
    assert shown(lone.expire(10.1)) == ["end 1: restarting"]


def test_a_worker_is_dead_two_and_a_half_deadlines_after_its_last_load() -> None:
    lone = fleet(a=4)
    request(lone, 1)
    lone.granted(SessionId(1), A)
    lone.loaded(A, load(3, deadline_s=1.0), 0.0)
    for tenth in range(25):
        assert shown(lone.expire(tenth / 10)) == []

    assert shown(lone.expire(2.5)) == ["drop a", "move 1"]


def test_a_new_worker_has_time_for_its_first_load() -> None:
    lone = fleet(a=4)
    for half in range(int(FIRST_LOAD_S * 2)):
        assert shown(lone.expire(half / 2)) == []

    assert shown(lone.expire(FIRST_LOAD_S)) == ["drop a"]


def test_nobody_is_judged_by_a_loop_that_did_not_listen() -> None:
    lone = fleet(a=4)
    lone.loaded(A, load(4, deadline_s=0.6), 0.0)
    lone.expire(0.0)

    assert shown(lone.expire(60.0)) == []
    assert shown(lone.expire(60.4)) == []
    assert shown(lone.expire(60.9)) == []
    assert shown(lone.expire(61.3)) == []
    assert shown(lone.expire(61.5)) == ["drop a"]


def test_another_incarnation_behind_an_endpoint_is_a_fresh_worker() -> None:
    lone = fleet(a=1)
    request(lone, 1)
    lone.granted(SessionId(1), A)

    assert shown(lone.welcomed(A, facts("wk:a"), 0.1)) == []
    assert shown(lone.welcomed(A, facts("wk:a2", n_sessions=2), 0.1)) == ["move 1", "open 1 on a"]
    assert request(lone, 2) == ["open 2 on a"]


def test_the_load_of_a_module_sums_its_workers_that_take_sessions() -> None:
    trio = fleet(a=4, b=4, c=4)
    trio.loaded(A, load(3, used=1), 0.0)
    trio.loaded(B, load(2, used=2), 0.0)

    assert trio.load_of("asr") == ModuleLoad(n_workers=2, used_slots=3, total_slots=8, free_slots=5)
    trio.loaded(B, load(2, used=2, draining=True), 0.1)
    assert trio.load_of("asr") == ModuleLoad(n_workers=1, used_slots=1, total_slots=4, free_slots=3)
    assert trio.load_of("other") == ModuleLoad(n_workers=0, used_slots=0, total_slots=0, free_slots=0)


def test_a_worker_that_is_reached_at_two_addresses_counts_once() -> None:
    lone = fleet(a=4)
    lone.welcomed(B, facts("wk:a"), 0.0)
    lone.loaded(A, load(3, used=1), 0.0)
    lone.loaded(B, load(3, used=1), 0.0)

    assert lone.load_of("asr") == ModuleLoad(n_workers=1, used_slots=1, total_slots=4, free_slots=3)


def test_what_unknown_workers_and_sessions_say_is_ignored() -> None:
    empty = fleet()

    assert empty.loaded(A, load(1), 0.0) == []
    assert empty.freed(A, 0.0) == []
    assert empty.rejected(SessionId(1), REJECT_FULL, 0, 0.0) == []
    empty.granted(SessionId(1), A)


# --- moves ------------------------------------------------------------------------------------------------


def held(of: Fleet, *sessions: int, worker: str = A) -> None:
    """Let the sessions have slots of the worker."""
    for session in sessions:
        request(of, session)
        of.granted(SessionId(session), worker)


def test_without_another_worker_a_lost_session_waits_for_one_and_then_ends() -> None:
    lone = fleet(a=4)
    held(lone, 1, 2)
    assert shown(lone.lost(A, 1.0)) == ["move 1", "move 2"]
    assert shown(lone.expire(10.9)) == []
    lone.released(SessionId(2))
    assert shown(lone.expire(11.0)) == ["end 1: worker_lost"]
    assert shown(lone.welcomed(A, facts(), 12.0)) == []


def test_a_worker_that_is_back_in_time_gets_its_sessions_again() -> None:
    lone = fleet(a=4)
    held(lone, 1, 2)
    lone.lost(A, 1.0)
    assert shown(lone.welcomed(A, facts("wk:a2"), 4.0)) == ["open 1 on a", "open 2 on a"]


def test_only_a_worker_with_the_same_model_goes_on_with_a_session() -> None:
    lone = fleet(a=4)
    held(lone, 1)
    lone.welcomed(B, facts("wk:b", fingerprint="another"), 0.0)
    assert shown(lone.lost(A, 0.1)) == ["move 1"]
    # Who has no slot yet may go there, and does not wait behind who may not.
    assert request(lone, 2) == ["open 2 on b"]
    assert shown(lone.welcomed(C, facts("wk:c"), 0.2)) == ["open 1 on c"]


def test_a_session_that_moves_is_asked_of_others_when_one_has_no_room_or_does_not_answer() -> None:
    trio = fleet(a=4)
    held(trio, 1)
    trio.welcomed(B, facts("wk:b"), 0.0)
    assert shown(trio.lost(A, 0.1)) == ["move 1", "open 1 on b"]
    trio.welcomed(C, facts("wk:c"), 0.1)
    trio.loaded(C, load(4), 0.1)
    assert shown(trio.rejected(SessionId(1), REJECT_FULL, 0, 0.2)) == ["open 1 on c"]
    assert shown(trio.loaded(B, load(1), 0.3)) == []
    assert [shown(trio.expire(0.3 + twentieth / 20)) for twentieth in range(6, 8)] == [[], ["open 1 on b"]]


def test_a_session_under_which_two_workers_die_within_a_minute_ends() -> None:
    pair = fleet(a=1)
    held(pair, 1)
    pair.lost(A, 1.0)
    pair.welcomed(B, facts("wk:b"), 2.0)
    pair.granted(SessionId(1), B)
    assert shown(pair.lost(B, 60.5)) == ["end 1: worker_lost"]


def test_a_session_that_outlived_a_worker_long_ago_is_not_suspected() -> None:
    pair = fleet(a=1)
    held(pair, 1)
    pair.lost(A, 1.0)
    pair.welcomed(B, facts("wk:b"), 2.0)
    pair.granted(SessionId(1), B)
    assert shown(pair.lost(B, 61.5)) == ["move 1"]


def test_sessions_that_are_given_up_move_and_a_restart_is_no_death() -> None:
    pair = fleet(a=1)
    held(pair, 1)
    pair.welcomed(B, facts("wk:b"), 0.0)
    for now, (worker, other) in enumerate(((A, "b"), (B, "a"), (A, "b"))):
        pair.loaded(worker, load(0), float(now))
        assert shown(pair.evicted(SessionId(1), is_restart=True, is_fault=False, now=now)) == [
            "move 1",
            f"open 1 on {other}",
        ]
        pair.granted(SessionId(1), B if other == "b" else A)
        pair.loaded(worker, load(1), float(now))
    assert shown(pair.evicted(SessionId(7), is_restart=True, is_fault=False, now=4.0)) == []


def test_a_session_given_up_for_a_fault_is_asked_of_another_worker_if_there_is_one() -> None:
    pair = fleet(a=4)
    held(pair, 1)
    pair.welcomed(B, facts("wk:b", n_sessions=1), 0.0)
    # A has far more room, and is the one where it went wrong; so has its other address.
    pair.welcomed(C, facts("wk:a"), 0.0)
    assert shown(pair.evicted(SessionId(1), is_restart=False, is_fault=True, now=1.0)) == ["move 1", "open 1 on b"]

    lone = fleet(a=4)
    held(lone, 1)
    assert shown(lone.evicted(SessionId(1), is_restart=False, is_fault=True, now=1.0)) == ["move 1", "open 1 on a"]


def test_sessions_leave_a_worker_that_drains_for_slots_that_others_keep_for_them() -> None:
    pair = fleet(a=4)
    held(pair, 1, 2)
    pair.welcomed(B, facts("wk:b", n_sessions=1), 0.0)
    assert shown(pair.loaded(A, load(2, draining=True), 0.1)) == ["reserve 1 on b"]
    assert shown(pair.loaded(A, load(2, draining=True), 0.2)) == []
    assert shown(pair.reserved(SessionId(1), B, 0.2)) == ["move 1 off", "open 1 on b"]
    pair.granted(SessionId(1), B)
    # As soon as there is more room the rest goes, too.
    assert shown(pair.welcomed(C, facts("wk:c"), 0.3)) == ["reserve 2 on c"]
    assert shown(pair.reserved(SessionId(2), C, 0.4)) == ["move 2 off", "open 2 on c"]


def test_a_session_for_which_nobody_keeps_a_slot_stays_on_the_worker_that_drains() -> None:
    pair = fleet(a=4)
    held(pair, 1)
    pair.welcomed(B, facts("wk:b"), 0.0)
    pair.loaded(A, load(3, draining=True), 0.1)
    pair.not_reserved(SessionId(1), B, REJECT_FULL, 0, 0.2)
    assert shown(pair.expire(0.3)) == []
    assert pair.reserved(SessionId(1), B, 0.3) == []
    assert shown(pair.loaded(B, load(1), 0.4)) == ["reserve 1 on b"]
    # One that does not answer keeps nobody from asking again.
    asked: list[str] = []
    for twentieth in range(8, 60):
        asked += shown(pair.expire(twentieth / 20))
        asked += shown(pair.loaded(A, load(3, draining=True), twentieth / 20))
        asked += shown(pair.loaded(B, load(1), twentieth / 20))
    assert asked == ["reserve 1 on b"]


def test_a_session_that_loses_its_worker_while_a_slot_is_kept_for_it_is_opened_anew() -> None:
    pair = fleet(a=4)
    held(pair, 1)
    pair.welcomed(B, facts("wk:b"), 0.0)
    pair.loaded(A, load(3, draining=True), 0.1)
    assert shown(pair.lost(A, 0.2)) == ["move 1", "open 1 on b"]
    assert pair.reserved(SessionId(1), B, 0.3) == []


def test_hundreds_of_sessions_move_some_at_a_time() -> None:
    pair = fleet(a=100)
    held(pair, *range(40))
    pair.welcomed(B, facts("wk:b", n_sessions=100), 0.0)
    opened = [[line for line in shown(pair.lost(A, 0.1)) if line.startswith("open")]]
    opened += [shown(pair.expire(0.1 + twentieth / 20)) for twentieth in range(1, 4)]
    assert [len(some) for some in opened] == [16, 16, 8, 0]


def test_nobody_new_gets_the_slots_of_those_that_wait_for_their_turn_to_move() -> None:
    pair = fleet(a=40)
    held(pair, *range(20))
    pair.welcomed(B, facts("wk:b", n_sessions=20), 0.0)
    assert len(pair.lost(A, 0.1)) == 20 + 16
    assert request(pair, 99, now=0.1) == [f"open {n} on b" for n in range(16, 20)]
    assert shown(pair.expire(0.3)) == ["refuse 99: no_free_slot"]


def test_a_worker_that_was_only_out_of_reach_did_not_die() -> None:
    lone = fleet(a=4)
    held(lone, 1)
    for now in (1.0, 10.0, 20.0):
        assert shown(lone.lost(A, now)) == ["move 1"]
        assert shown(lone.welcomed(A, facts("wk:a"), now + 1)) == ["open 1 on a"]
        lone.granted(SessionId(1), A)


def test_a_file_that_lost_its_worker_waits_as_long_as_one_that_never_had_any() -> None:
    lone = fleet(a=4)
    request(lone, 1, kind=FILE)
    lone.granted(SessionId(1), A)
    lone.lost(A, 0.0)
    assert shown(lone.expire(99.9)) == []
    assert shown(lone.expire(100.0)) == ["end 1: worker_lost"]


def test_a_log_that_does_not_fit_the_model_ends_its_session_and_does_the_worker_no_harm() -> None:
    pair = fleet(a=4)
    held(pair, 1)
    pair.welcomed(B, facts("wk:b"), 0.0)
    pair.lost(A, 0.1)
    assert shown(pair.rejected(SessionId(1), REJECT_RESUME, 4, 0.2)) == ["end 1: worker_lost"]
    assert request(pair, 2) == ["open 2 on b"]


def test_sessions_end_with_their_worker_if_they_shall_not_move() -> None:
    pair = fleet(GatewayConfig(move_wait_s=0.0), a=4, b=1)
    held(pair, 1)
    assert shown(pair.loaded(A, load(3, draining=True), 0.1)) == []
    assert shown(pair.lost(A, 0.1)) == ["end 1: restarting"]
