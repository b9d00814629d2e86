"""The pool's doors: who is welcomed, which sessions get slots, how they end."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asr_worker.core.admission import admit
from asr_worker.core.gateways import MAX_GATEWAYS
from asr_worker.core.handshake import Identity
from asr_worker.core.pool import Pool
from asr_worker.core.words import WordSaid
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_speech import FakeSettings
from shared.config import WorkerConfig
from shared.messages import (
    REJECT_DRAINING,
    REJECT_FULL,
    REJECT_HELLO,
    REJECT_RESUME,
    Closed,
    Evict,
    Heartbeat,
    Hello,
    Open,
    Ready,
    Reject,
    ResumeLog,
    SessionKind,
    Unwelcome,
    Welcome,
)
from shared.units import Epoch, FrameIndex, SessionId, SlotIndex

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported


def ready(session: int, slot: int, epoch: int = 1) -> Ready:
    return Ready(session=SessionId(session), epoch=Epoch(epoch), slot=slot)  # type: ignore[arg-type]


def reject(session: int, reason: str, free: int) -> Reject:
    return Reject(session=SessionId(session), epoch=Epoch(1), reason=reason, free=free)


def evict(session: int, code: str, reason: str, epoch: int = 1) -> Evict:
    return Evict(session=SessionId(session), epoch=Epoch(epoch), code=code, reason=reason)


def test_a_gateway_is_welcomed_with_the_facts(make_worker: Fixture) -> None:
    worker = make_worker(n_heads=0, delay_frames=32)
    welcome = worker.greet(b"other")
    assert isinstance(welcome, Welcome)
    assert (welcome.worker, welcome.module, welcome.n_sessions, welcome.n_heads) == ("wk:test", "fake", 3, 0)
    assert (welcome.delay_frames, welcome.context_frames, welcome.window_frames) == (32, 100, 25)
    assert welcome.fingerprint == worker.model.facts.fingerprint


def test_another_version_of_the_link_is_unwelcome(worker: Fixture) -> None:
    reason = "this worker speaks version 2 of the link, the gateway 3"
    assert worker.tell(Hello(version=3, gateway="new"), b"new") == [Unwelcome(versions=(2, 1), reason=reason)]
    assert worker.pool.gateways == (b"gw",)


def test_too_many_gateways_are_unwelcome(worker: Fixture) -> None:
    for number in range(MAX_GATEWAYS - 1):
        worker.greet(f"gw{number}".encode())
    (answer,) = worker.tell(Hello(version=1, gateway="late"), b"late")
    assert answer == Unwelcome(versions=(2, 1), reason="this worker serves 1024 gateways already")
    assert worker.tell(Heartbeat(), b"later") == [answer]


def test_sessions_get_the_lowest_free_slot(worker: Fixture) -> None:
    assert [worker.open(session) for session in (7, 8, 9)] == [ready(7, 0), ready(8, 1), ready(9, 2)]
    assert worker.open(10) == reject(10, REJECT_FULL, 0)
    assert worker.close(8) == [Closed(session=SessionId(8), epoch=Epoch(1))]
    assert worker.open(11) == ready(11, 1)
    assert (worker.load().used, worker.load().free) == (3, 0)


def test_fewer_sessions_than_slots_are_admitted_if_so_configured(make_worker: Fixture) -> None:
    worker = make_worker(WorkerConfig(max_sessions=1))
    assert worker.open(7) == ready(7, 0)
    assert worker.open(8) == reject(8, REJECT_FULL, 0)
    assert worker.load().free == 0


def test_files_leave_slots_to_live_sessions(make_worker: Fixture) -> None:
    worker = make_worker(n_slots=8)
    answers = [worker.open(session, kind=SessionKind.FILE) for session in (1, 2, 3)]
    assert answers == [ready(1, 0), ready(2, 1), reject(3, REJECT_FULL, 6)]
    assert worker.open(4) == ready(4, 2)
    worker.close(1)
    assert worker.open(5, kind=SessionKind.FILE) == ready(5, 0)


def test_one_file_is_admitted_however_few_slots_there_are(make_worker: Fixture) -> None:
    worker = make_worker(n_slots=1)
    assert worker.open(1, kind=SessionKind.FILE) == ready(1, 0)


def test_a_draining_worker_admits_nobody_and_keeps_whom_it_has(worker: Fixture) -> None:
    worker.open(1)
    worker.pool.drain()
    assert worker.open(2) == reject(2, REJECT_DRAINING, 0)
    assert worker.pool.n_free == 0
    assert (worker.load().draining, worker.load().used, worker.load().free) == (True, 1, 0)


@pytest.mark.parametrize(
    "change",
    [
        {"codes": np.zeros((1, 7), np.uint16)},
        {"codes": np.full((1, 8), 2048, np.uint16)},
        {"text": np.full(1, 2**31 - 1, np.int32)},
        {"flags": np.full(1, 2, np.uint8)},
        {"pcm": np.full((1, 1920), np.nan, np.float32)},
    ],
    ids=["too few codebooks", "no such code", "no such token", "no such kind of step", "no audio"],
)
def test_a_log_that_the_model_could_not_step_is_rejected(worker: Fixture, change: dict[str, Any]) -> None:
    log = ResumeLog(
        frames=np.zeros(1, np.int64),
        flags=np.zeros(1, np.uint8),
        times=np.array([0, 1920]),
        text=np.zeros(1, np.int32),
        codes=np.zeros((1, 8), np.uint16),
        pcm=np.zeros((0, 1920), np.float32),
        steps=1,
        silence=0,
        is_whole=True,
        is_word_open=False,
        last_end_s=0.0,
    )
    message = Open(
        session=SessionId(1),
        epoch=Epoch(2),
        kind=SessionKind.LIVE,
        first_frame=FrameIndex(1),
        resume=replace(log, **change),
    )
    assert worker.tell(message) == [Reject(session=SessionId(1), epoch=Epoch(2), reason=REJECT_RESUME, free=3)]
    assert worker.tell(replace(message, resume=log)) == [ready(1, 0, epoch=2)]


@pytest.mark.parametrize("n_steps", [0, 1, 4])
def test_a_model_that_speaks_at_once_can_be_moved(n_steps: int) -> None:
    facts = replace(FakeModel(FakeSettings(n_slots=1)).facts, delay_frames=0, whole_words=False)
    pool = Pool(
        facts=facts,
        identity=Identity(worker="wk:test", module="fake"),
        config=WorkerConfig(),
        admission=admit(facts, WorkerConfig()),
        detokenize=lambda pieces: " ".join(map(str, pieces)),
    )
    log = ResumeLog(
        frames=np.arange(n_steps),
        flags=np.zeros(n_steps, np.uint8),
        times=np.arange(n_steps + 1) * 1920,
        text=np.arange(17, 17 + n_steps, dtype=np.int32),
        codes=np.zeros((n_steps, facts.n_codebooks), np.uint16),
        pcm=np.zeros((0, 1920), np.float32),
        steps=n_steps,
        silence=0,
        is_whole=True,
        is_word_open=n_steps > 0,
        last_end_s=0.0,
    )
    pool.handle(b"gw", Hello(version=2, gateway="gw"), 0.0)
    at = FrameIndex(n_steps)
    message = Open(session=SessionId(1), epoch=Epoch(2), kind=SessionKind.LIVE, first_frame=at, resume=log)
    assert [answer for _, answer in pool.handle(b"gw", message, 0.0)] == [ready(1, 0, epoch=2)]
    stream = pool._leases.stream(SlotIndex(0))
    (said,) = [event for event in stream.words.feed(0, 1.0) if isinstance(event, WordSaid)] or [None]
    assert (said.text if said else "") == " ".join(map(str, range(17, 17 + n_steps)))


def test_a_higher_epoch_takes_over_and_a_lower_one_is_dropped(worker: Fixture) -> None:
    assert worker.open(1, epoch=2) == ready(1, 0, epoch=2)
    message = Open(session=SessionId(1), epoch=Epoch(1), kind=SessionKind.LIVE, first_frame=FrameIndex(0))
    assert worker.tell(message) == []
    assert worker.open(1, epoch=3) == ready(1, 0, epoch=3)
    worker.close(1, epoch=2)
    assert worker.load().used == 1
    worker.close(1, epoch=3)
    assert worker.load().used == 0


def test_opening_an_epoch_twice_ends_it(worker: Fixture) -> None:
    worker.open(1)
    assert worker.open(1) == evict(1, "bad_link_message", "epoch 1 of the session is open already")
    assert worker.load().used == 0


def test_closing_what_is_not_open_is_answered_all_the_same(worker: Fixture) -> None:
    assert worker.close(5) == [Closed(session=SessionId(5), epoch=Epoch(1))]


def test_gateways_cannot_reach_into_each_other(make_worker: Fixture) -> None:
    worker = make_worker()
    worker.greet(b"other")
    worker.open(1)
    worker.open(1, gateway=b"other")
    worker.close(1, gateway=b"other")
    assert worker.load().used == 1
    answer = worker.audio((1, 0, np.zeros(1920, np.float32)), gateway=b"other")
    assert answer == [evict(1, "unknown_session", "the worker holds no such session")]


def test_what_is_sent_for_an_unknown_session_is_answered_by_one_evict(worker: Fixture) -> None:
    told = [evict(9, "unknown_session", "the worker holds no such session")]
    silence = np.zeros(1920, np.float32)
    assert worker.audio((9, 0, silence), (9, 1, silence)) == told
    assert worker.marker(9, 1, 0) == worker.flush(9, 1, 0) == worker.reset(9, 1, 0, restart=True) == []
    worker.now += 1.0
    assert worker.marker(9, 1, 0) == told


def test_what_carries_an_old_epoch_is_dropped(worker: Fixture) -> None:
    worker.open(1, epoch=2)
    silence = np.zeros(1920, np.float32)
    assert worker.audio((1, 0, silence)) == worker.marker(1, 1, 0) == worker.reset(1, 1, 0, restart=True) == []
    assert worker.run() == 0
    assert worker.answers(1, 2) == []


def test_what_carries_a_newer_epoch_is_unknown(worker: Fixture) -> None:
    worker.open(1)
    told = [evict(1, "unknown_session", "the worker holds no such session", epoch=2)]
    assert worker.audio((1, 0, np.zeros(1920, np.float32)), epoch=2) == told
    assert worker.load().used == 1


def test_a_silent_gateway_loses_its_slots_and_is_told(worker: Fixture) -> None:
    worker.open(1)
    worker.greet(b"other")
    worker.open(2, gateway=b"other")
    worker.now += 4.0
    worker.tell(Heartbeat(), b"other")
    assert worker.pool.next_deadline() == 105.0
    worker.now += 1.0
    lost = worker.keep(worker.pool.expire(worker.now))
    assert lost == [evict(1, "gateway_timeout", "no heartbeat of this gateway for 5 s")]
    assert (worker.pool.gateways, worker.load().used) == ((b"other",), 1)


def test_an_unreachable_gateway_loses_its_slots(worker: Fixture) -> None:
    worker.open(1)
    worker.pool.gateway_gone(b"gw")
    worker.pool.gateway_gone(b"never seen")
    assert (worker.pool.gateways, worker.load().used) == ((), 0)


def test_a_gateway_that_says_hello_again_has_begun_anew(worker: Fixture) -> None:
    worker.open(1)
    told, welcome = worker.tell(Hello(version=1, gateway="gw"))
    assert told == evict(1, "hello", "the gateway began anew")
    assert isinstance(welcome, Welcome)
    assert worker.load().used == 0


def test_a_gateway_that_was_given_up_is_welcomed_anew_before_anything_else(worker: Fixture) -> None:
    worker.pool.gateway_gone(b"gw")
    message = Open(session=SessionId(1), epoch=Epoch(1), kind=SessionKind.LIVE, first_frame=FrameIndex(0))
    welcome, answer = worker.tell(message)
    assert (isinstance(welcome, Welcome), answer) == (True, reject(1, REJECT_HELLO, 3))
    assert worker.open(1) == ready(1, 0)


@pytest.mark.parametrize("say", ["heartbeat", "marker"])
def test_a_stranger_learns_which_worker_it_talks_to(worker: Fixture, say: str) -> None:
    worker.pool.gateway_gone(b"gw")
    welcome, *rest = worker.tell(Heartbeat()) if say == "heartbeat" else worker.marker(5, 1, 0)
    assert isinstance(welcome, Welcome)
    assert rest == ([] if say == "heartbeat" else [evict(5, "unknown_session", "the worker holds no such session")])


def test_a_long_reason_is_cut_to_what_the_link_takes(worker: Fixture) -> None:
    worker.open(1)
    assert worker.keep(worker.pool.evict_all("model_fault", "x" * 9999)) == [evict(1, "model_fault", "x" * 1000)]


def test_when_the_model_fails_every_session_is_told(worker: Fixture) -> None:
    worker.greet(b"other")
    worker.open(1)
    worker.open(2, gateway=b"other")
    told = worker.keep(worker.pool.evict_all("model_fault", "no device"))
    assert told == [evict(1, "model_fault", "no device"), evict(2, "model_fault", "no device")]
    assert worker.load().used == 0
