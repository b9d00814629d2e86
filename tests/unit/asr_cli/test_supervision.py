from signal import SIGKILL, SIGTERM

import pytest

from asr_cli.supervision import (
    AnnounceFailure,
    AnnounceRestart,
    BecameReady,
    ChildExited,
    ChildHung,
    Finish,
    SignalChild,
    StartChild,
    StopRequested,
    Supervision,
    TimePassed,
)


@pytest.fixture
def supervision() -> Supervision:
    workers = {"w0": "asr", "w1": "asr"}
    return Supervision(gateways=["gateway"], workers=workers, gateway_drain_s=15.0, worker_drain_s=35.0)


def started(supervision: Supervision) -> Supervision:
    actions = supervision.start(now=0.0)
    while actions:
        action = actions.pop(0)
        assert isinstance(action, StartChild)
        actions += supervision.handle(BecameReady(name=action.name), now=0.1)
    return supervision


def crash(supervision: Supervision, name: str, now: float) -> list[object]:
    return list(supervision.handle(ChildExited(name=name, status=1), now=now))


def test_the_gateway_starts_when_the_first_worker_is_ready(supervision: Supervision) -> None:
    assert supervision.start(now=0.0) == [StartChild(name="w0"), StartChild(name="w1")]
    assert supervision.next_deadline() is None
    assert supervision.handle(BecameReady(name="w1"), now=90.0) == [StartChild(name="gateway")]
    assert supervision.handle(BecameReady(name="w0"), now=91.0) == []


def test_the_gateway_waits_for_each_module() -> None:
    supervision = Supervision(
        gateways=["gateway"], workers={"w0": "en", "w1": "fr"}, gateway_drain_s=1.0, worker_drain_s=1.0
    )
    supervision.start(now=0.0)
    assert supervision.handle(BecameReady(name="w0"), now=20.0) == []
    assert supervision.handle(BecameReady(name="w1"), now=30.0) == [StartChild(name="gateway")]


def test_a_module_that_does_not_start_holds_up_no_other() -> None:
    supervision = Supervision(
        gateways=["gateway"], workers={"w0": "en", "w1": "fr"}, gateway_drain_s=1.0, worker_drain_s=1.0
    )
    supervision.start(now=0.0)
    assert supervision.handle(ChildExited(name="w1", status=70), now=5.0) == [
        AnnounceRestart(name="w1", status=70, delay_s=1.0)
    ]
    assert supervision.handle(BecameReady(name="w0"), now=20.0) == [StartChild(name="gateway")]


def test_a_worker_that_is_ready_after_the_stop_was_asked_for_starts_no_gateway(supervision: Supervision) -> None:
    supervision.start(now=0.0)
    assert supervision.handle(StopRequested(), now=1.0) == [
        SignalChild(name="w0", signal=SIGTERM),
        SignalChild(name="w1", signal=SIGTERM),
    ]
    assert supervision.handle(BecameReady(name="w0"), now=1.1) == []


def test_a_child_that_dies_is_started_again_after_a_second(supervision: Supervision) -> None:
    started(supervision)
    assert crash(supervision, "w0", 5.0) == [AnnounceRestart(name="w0", status=1, delay_s=1.0)]
    assert supervision.next_deadline() == 6.0
    assert supervision.handle(TimePassed(), now=5.9) == []
    assert supervision.handle(TimePassed(), now=6.0) == [StartChild(name="w0")]
    assert supervision.next_deadline() is None


def test_the_wait_doubles_up_to_thirty_seconds_and_never_ends(supervision: Supervision) -> None:
    started(supervision)
    now, delays = 0.0, []
    for _ in range(8):
        (action,) = supervision.handle(ChildExited(name="w0", status=-9), now=now)
        assert isinstance(action, AnnounceRestart)
        delays.append(action.delay_s)
        now += action.delay_s
        assert supervision.handle(TimePassed(), now=now) == [StartChild(name="w0")]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_a_child_that_hangs_is_killed_and_started_again(supervision: Supervision) -> None:
    started(supervision)
    assert supervision.handle(ChildHung(name="w0"), now=90.0) == [SignalChild(name="w0", signal=SIGKILL)]
    assert supervision.handle(ChildExited(name="w0", status=-9), now=90.1) == [
        AnnounceRestart(name="w0", status=-9, delay_s=1.0)
    ]


def test_a_long_run_makes_the_next_wait_short_again(supervision: Supervision) -> None:
    started(supervision)
    crash(supervision, "w0", 1.0)
    supervision.handle(TimePassed(), now=2.0)
    assert crash(supervision, "w0", 61.9) == [AnnounceRestart(name="w0", status=1, delay_s=2.0)]
    supervision.handle(TimePassed(), now=64.0)
    assert crash(supervision, "w0", 124.0) == [AnnounceRestart(name="w0", status=1, delay_s=1.0)]


def test_children_wait_for_their_own_turn(supervision: Supervision) -> None:
    started(supervision)
    crash(supervision, "w0", 5.0)
    crash(supervision, "gateway", 5.5)
    assert supervision.next_deadline() == 6.0
    assert supervision.handle(TimePassed(), now=6.0) == [StartChild(name="w0")]
    assert supervision.handle(TimePassed(), now=6.5) == [StartChild(name="gateway")]


@pytest.mark.parametrize("status", [1, 2])
def test_wrong_settings_at_the_first_start_end_everything(supervision: Supervision, status: int) -> None:
    supervision.start(now=0.0)
    assert supervision.handle(ChildExited(name="w1", status=status), now=1.0) == [
        AnnounceFailure(name="w1", status=status),
        SignalChild(name="w0", signal=SIGTERM),
    ]
    assert supervision.handle(ChildExited(name="w0", status=0), now=1.2) == [Finish(status=status)]


def test_wrong_settings_end_the_start_whoever_was_ready_before(supervision: Supervision) -> None:
    supervision.start(now=0.0)
    supervision.handle(BecameReady(name="w0"), now=1.0)
    supervision.handle(BecameReady(name="gateway"), now=1.5)
    assert supervision.handle(ChildExited(name="w1", status=1), now=9.0) == [
        AnnounceFailure(name="w1", status=1),
        SignalChild(name="gateway", signal=SIGTERM),
    ]


def test_a_device_that_fails_at_the_first_start_may_recover(supervision: Supervision) -> None:
    supervision.start(now=0.0)
    assert supervision.handle(ChildExited(name="w1", status=70), now=1.0) == [
        AnnounceRestart(name="w1", status=70, delay_s=1.0)
    ]


def test_wrong_settings_later_are_one_more_reason_to_try_again(supervision: Supervision) -> None:
    started(supervision)
    assert supervision.handle(ChildExited(name="w0", status=2), now=3.0) == [
        AnnounceRestart(name="w0", status=2, delay_s=1.0)
    ]


def test_a_stop_asks_the_gateway_first_and_the_workers_when_it_is_gone(supervision: Supervision) -> None:
    started(supervision)
    assert supervision.handle(StopRequested(), now=10.0) == [SignalChild(name="gateway", signal=SIGTERM)]
    assert supervision.next_deadline() == 25.0
    assert supervision.handle(ChildExited(name="gateway", status=0), now=12.0) == [
        SignalChild(name="w0", signal=SIGTERM),
        SignalChild(name="w1", signal=SIGTERM),
    ]
    assert supervision.next_deadline() == 47.0
    assert supervision.handle(ChildExited(name="w1", status=0), now=13.0) == []
    assert supervision.handle(ChildExited(name="w0", status=0), now=13.5) == [Finish(status=0)]
    assert supervision.next_deadline() is None


def test_what_outlives_its_deadline_is_killed(supervision: Supervision) -> None:
    started(supervision)
    supervision.handle(StopRequested(), now=10.0)
    assert supervision.handle(TimePassed(), now=25.0) == [SignalChild(name="gateway", signal=SIGKILL)]
    supervision.handle(ChildExited(name="gateway", status=-9), now=25.1)
    supervision.handle(ChildExited(name="w0", status=0), now=26.0)
    assert supervision.handle(TimePassed(), now=60.1) == [SignalChild(name="w1", signal=SIGKILL)]
    assert supervision.handle(ChildExited(name="w1", status=-9), now=60.2) == [Finish(status=0)]


def test_a_second_request_kills_all_at_once(supervision: Supervision) -> None:
    started(supervision)
    supervision.handle(StopRequested(), now=10.0)
    assert supervision.handle(StopRequested(), now=10.5) == [
        SignalChild(name="w0", signal=SIGKILL),
        SignalChild(name="w1", signal=SIGKILL),
        SignalChild(name="gateway", signal=SIGKILL),
    ]


def test_nothing_is_started_again_while_stopping(supervision: Supervision) -> None:
    started(supervision)
    crash(supervision, "w0", 9.5)
    supervision.handle(StopRequested(), now=10.0)
    assert supervision.handle(TimePassed(), now=10.5) == []
    assert supervision.handle(ChildExited(name="w1", status=1), now=11.0) == []
    assert supervision.handle(ChildExited(name="gateway", status=0), now=12.0) == [Finish(status=0)]


def test_a_stop_while_nothing_runs_finishes_at_once() -> None:
    supervision = Supervision(gateways=["gateway"], workers={}, gateway_drain_s=1.0, worker_drain_s=1.0)
    started(supervision)
    crash(supervision, "gateway", 0.5)
    assert supervision.handle(StopRequested(), now=0.6) == [Finish(status=0)]
