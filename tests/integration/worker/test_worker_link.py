"""The link, with a real worker process and real ZeroMQ sockets."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_worker.model.fake_oracle import FakeTranscript, expected_events
from asr_worker.model.fake_speech import FakeSettings
from shared.messages import (
    AudioBlock,
    Close,
    Closed,
    EventKind,
    Evict,
    Heartbeat,
    Hello,
    Load,
    Marker,
    Ready,
    Reject,
    StepBlock,
    StepFlag,
    Unwelcome,
    Welcome,
)
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId
from shared.wire import MAX_PART_BYTES, encode

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported
Speech = Callable[[int, int], NDArray[np.float32]]

MARKER, FLUSHED, RESET_DONE = EventKind.MARKER, EventKind.FLUSHED, EventKind.RESET_DONE


@pytest.fixture(scope="module")
def worker(start_worker: Fixture) -> Fixture:
    """One worker of four slots for all tests of this file that leave none behind."""
    return start_worker("--fake-slots", "4", "--metrics-port", "0")


@pytest.fixture
def gateway(connect: Fixture, worker: Fixture) -> Iterator[Fixture]:
    gateway = connect(worker)
    gateway.hello()
    yield gateway
    for session in list(gateway.sessions):
        gateway.close(session)


def ready(session: int, slot: int) -> Ready:
    return Ready(session=SessionId(session), epoch=Epoch(1), slot=slot)  # type: ignore[arg-type]


def audio(session: int, *frames: int) -> AudioBlock:
    n = len(frames)
    return AudioBlock(
        sessions=np.full(n, session, np.int64),
        epochs=np.ones(n, np.int32),
        frames=np.array(frames, np.int64),
        pcm=np.zeros((n, FRAME_SAMPLES), np.float32),
    )


def scrape(worker: Fixture, path: str = "/metrics") -> str:
    with urllib.request.urlopen(worker.metrics_url() + path, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


# --- one session --------------------------------------------------------------------------------------------


def test_open_stream_marker_flush_and_close(gateway: Fixture, make_speech: Speech) -> None:
    pcm = make_speech(1, 80)
    assert gateway.open(11) == ready(11, 0)
    session = gateway.sessions[11]
    session.say(pcm)
    session.marker(5)
    session.flush(6)
    session.marker(7)
    gateway.run(lambda: len(session.answers) == 3)
    # The flush's silence makes the frames that the first marker waits for.
    assert session.answers == [(MARKER, 5), (FLUSHED, 6), (MARKER, 7)]
    assert session.words == expected_events(pcm, flush=True)
    assert [frame for frame, flag in session.rows if flag == StepFlag.CLIENT] == list(range(80))
    assert session.credit == 25
    assert gateway.close(11) == Closed(session=SessionId(11), epoch=Epoch(1))


def test_a_live_session_waits_for_its_marker_until_it_has_sent_d_more_frames(
    gateway: Fixture, make_speech: Speech
) -> None:
    gateway.open(12)
    session = gateway.sessions[12]
    session.say(make_speech(2, 10))
    session.marker(1)
    session.say(make_speech(3, 5))
    gateway.run(lambda: len(session.rows) == 15)
    assert session.answers == []
    session.say(make_speech(4, 1))
    gateway.run(lambda: session.answers)
    assert session.answers == [(MARKER, 1)]


def test_reset_in_stream_order_and_init_at_once(gateway: Fixture, make_speech: Speech) -> None:
    first, second = make_speech(5, 40), make_speech(6, 40)
    gateway.open(13)
    session = gateway.sessions[13]
    session.say(first)
    session.reset(8)
    session.say(second)
    session.flush(9)
    gateway.run(lambda: len(session.answers) == 2)
    transcript = FakeTranscript(FakeSettings())
    words = transcript.feed(first)
    transcript.reset()
    assert session.words == words + transcript.feed(second) + transcript.flush()
    assert session.answers == [(RESET_DONE, 8), (FLUSHED, 9)]
    session.say(first)
    gateway.run(lambda: len(session.rows) > 100)
    assert session.init() == ready(13, 0)
    session.say(second)
    session.flush(10)
    gateway.run(lambda: session.answers)
    assert session.answers == [(FLUSHED, 10)]
    assert session.words == expected_events(second, flush=True)
    assert len([flag for _, flag in session.rows if flag == StepFlag.CLIENT]) == 40


def test_a_prefix_is_heard_and_counts_for_nothing(gateway: Fixture, make_speech: Speech) -> None:
    pcm = make_speech(7, 30)
    gateway.open(14, prefix=12)
    session = gateway.sessions[14]
    session.say(pcm)
    session.flush(1, pad=480)
    gateway.run(lambda: session.answers)
    assert session.words == expected_events(pcm, flush=True, pad_samples=480, prefix_frames=12)


# --- several -------------------------------------------------------------------------------------------------


def test_a_full_worker_refuses_and_says_so(gateway: Fixture) -> None:
    assert [gateway.open(number) for number in (1, 2, 3, 4)] == [ready(n, n - 1) for n in (1, 2, 3, 4)]
    assert gateway.open(5) == Reject(session=SessionId(5), epoch=Epoch(1), reason="full", free=0)
    del gateway.sessions[5]
    gateway.close(2)
    assert gateway.open(6) == ready(6, 1)


def test_two_gateways_share_a_worker(gateway: Fixture, connect: Fixture, worker: Fixture, make_speech: Speech) -> None:
    other = connect(worker)
    other.hello()
    streams = {21: make_speech(21, 60), 22: make_speech(22, 60)}
    for home, number in ((gateway, 21), (other, 22)):
        home.open(number)
        home.sessions[number].say(streams[number])
        home.sessions[number].flush(0)
    gateway.run(lambda: gateway.sessions[21].answers)
    other.run(lambda: other.sessions[22].answers)
    assert gateway.sessions[21].words == expected_events(streams[21], flush=True)
    assert other.sessions[22].words == expected_events(streams[22], flush=True)
    other.close(22)


def test_a_gateway_that_dies_frees_its_slots(gateway: Fixture, connect: Fixture, worker: Fixture) -> None:
    doomed = connect(worker)
    doomed.hello()
    for number in (31, 32, 33):
        assert isinstance(doomed.open(number), Ready)
    assert isinstance(gateway.open(34), Ready)
    assert isinstance(gateway.open(35), Reject)
    doomed.socket.close()

    def opens() -> bool:
        return isinstance(gateway.open(35), Ready)

    gateway.run(opens, within_s=3.0)


def test_a_gateway_that_hangs_loses_its_slots(start_worker: Fixture, connect: Fixture) -> None:
    """Its socket answers for it for ever: only the heartbeat of its own loop counts."""
    worker = start_worker("--fake-slots", "1", "--gateway-timeout-s", "0.5")
    hung, other = connect(worker), connect(worker)
    hung.hello()
    other.hello()
    hung.open(1)

    def opens() -> bool:
        other.send(Heartbeat())
        return isinstance(other.open(2), Ready)

    other.run(opens, within_s=5.0)
    told = hung.expect(Evict)
    assert (told.session, told.code) == (1, "gateway_timeout")
    hung.send(Heartbeat())
    assert isinstance(hung.expect(Welcome), Welcome)


def test_a_crowd_cannot_keep_a_single_frame_waiting(
    start_worker: Fixture, connect: Fixture, make_speech: Speech
) -> None:
    worker = start_worker("--fake-slots", "4", "--fake-step-ms", "10")
    crowd, single = connect(worker), connect(worker)
    crowd.hello()
    single.hello()
    for number in (1, 2, 3):
        crowd.open(number)
        crowd.sessions[number].say(make_speech(number, 400))
    single.open(4)
    crowd.run(lambda: len(crowd.sessions[1].rows) > 20)
    for place in range(10):
        before = len(crowd.sessions[3].rows)
        single.sessions[4].say(make_speech(place, 1))
        single.run(lambda: len(single.sessions[4].rows) == place + 1)  # noqa: B023  (run at once)
        crowd.run(lambda: crowd.receive(0.0) is None)
        assert len(crowd.sessions[3].rows) - before < 25, "it was in one of the next steps, not behind all that waits"


def test_a_model_without_heads_end_to_end(start_worker: Fixture, connect: Fixture, make_speech: Speech) -> None:
    worker = start_worker("--fake-heads", "0", "--fake-delay", "32", "--fake-slots", "1")
    gateway = connect(worker)
    welcome = gateway.hello()
    assert (welcome.n_heads, welcome.delay_frames) == (0, 32)
    pcm = make_speech(9, 100)
    gateway.open(1)
    gateway.sessions[1].say(pcm)
    gateway.sessions[1].flush(3)
    gateway.run(lambda: gateway.sessions[1].answers)
    assert gateway.sessions[1].words == expected_events(pcm, FakeSettings(n_heads=0, delay_frames=32), flush=True)


# --- breaches of the protocol -----------------------------------------------------------------------------------


def test_a_gateway_of_another_version_is_told_so(connect: Fixture, worker: Fixture) -> None:
    gateway = connect(worker)
    gateway.send(Hello(version=7, gateway="gw:from:the:future"))
    answer = gateway.expect(Unwelcome)
    assert (answer.versions, "version 2" in answer.reason) == ((2, 1), True)


def test_what_is_sent_for_an_unknown_session_is_answered_once(gateway: Fixture) -> None:
    for frame in range(3):
        gateway.send(audio(99, frame))
        gateway.send(Marker(session=SessionId(99), epoch=Epoch(1), id=1, frame=FrameIndex(0)))
    gateway.send(Close(session=SessionId(99), epoch=Epoch(1)))
    gateway.other.clear()
    gateway.expect(Closed)
    told = [message for message in gateway.other if isinstance(message, Evict)]
    assert [(message.session, message.code) for message in told] == [(99, "unknown_session")]


@pytest.mark.parametrize(
    ("frames", "code"), [([0, 2], "gap"), ([1], "gap"), (range(26), "bad_link_message")], ids=["gap", "late", "credit"]
)
def test_frames_against_the_rules_end_their_session_alone(
    gateway: Fixture, worker: Fixture, make_speech: Speech, frames: list[int], code: str
) -> None:
    pcm = make_speech(8, 50)
    gateway.open(41)
    gateway.open(42)
    gateway.sessions[42].say(pcm)
    gateway.send(audio(41, *frames))
    told = gateway.expect(Evict)
    assert (told.session, told.code) == (41, code)
    gateway.sessions[42].flush(1)
    gateway.run(lambda: gateway.sessions[42].answers)
    assert gateway.sessions[42].words == expected_events(pcm, flush=True)
    gateway.run(lambda: (41, gateway.name) in evicted(worker))


def evicted(worker: Fixture) -> list[tuple[int, str]]:
    """Sessions and gateways that the worker's log names so far."""
    lines = [json.loads(line) for line in worker.output().splitlines() if "session_evicted" in line]
    return [(line["session"], line["gateway"]) for line in lines]


MALFORMED = [
    [b""],
    [b"\xff"],
    [b"\x02"],
    [b"\x02\xc1"],
    [b"\x01\x92\x01"],
    [b"\x03\x91\x05", b"", b""],
    [b"\x45\x90"],
    [b"x" * 100_000],
    [b""] * 300,
    [encode(audio(1, 0))[0], b"\x00" * 20, b"\x00" * 7679],
]


@pytest.mark.parametrize("parts", MALFORMED, ids=lambda parts: f"{len(parts)} of {len(parts[0])}")
def test_malformed_parts_are_counted_and_hurt_nobody(
    gateway: Fixture, connect: Fixture, worker: Fixture, make_speech: Speech, parts: list[bytes]
) -> None:
    def count() -> float:
        (line,) = [line for line in scrape(worker).splitlines() if line.startswith("asr_worker_link_errors")]
        return float(line.split()[-1])

    before = count()
    pcm = make_speech(10, 20)
    gateway.open(51)
    gateway.sessions[51].say(pcm)
    rude = connect(worker)
    rude.socket.send_multipart(parts)
    rude.hello()
    gateway.sessions[51].flush(1)
    gateway.run(lambda: gateway.sessions[51].answers)
    assert gateway.sessions[51].words == expected_events(pcm, flush=True)
    assert count() == before + 1


def test_an_oversize_part_costs_its_sender_the_connection_only(
    gateway: Fixture, connect: Fixture, worker: Fixture, make_speech: Speech
) -> None:
    pcm = make_speech(11, 20)
    gateway.open(52)
    rude = connect(worker)
    rude.hello()
    rude.open(53)
    rude.socket.send_multipart([b"\x03", b"", bytes(MAX_PART_BYTES + 1)])
    gateway.sessions[52].say(pcm)
    gateway.sessions[52].flush(1)
    gateway.run(lambda: gateway.sessions[52].answers)
    assert gateway.sessions[52].words == expected_events(pcm, flush=True)
    # The socket has connected again by itself; the worker has forgotten the session of the connection that it cut.
    gateway.run(lambda: isinstance(gateway.receive(1.0), Load) and gateway.other[-1].used == 1)


# --- signs of life ------------------------------------------------------------------------------------------------


def test_an_idle_worker_says_how_it_is_every_200_ms(gateway: Fixture) -> None:
    gateway.expect(Load)
    started_s = time.monotonic()
    loads = [gateway.expect(Load) for _ in range(5)]
    assert 0.7 < time.monotonic() - started_s < 1.6
    assert {(load.used, load.free, load.draining) for load in loads} == {(0, 4, False)}
    assert all(load.deadline_s >= 0.6 for load in loads)


def test_results_and_load_move_with_the_model(gateway: Fixture, make_speech: Speech) -> None:
    steps = gateway.expect(Load).steps
    gateway.open(61)
    gateway.sessions[61].say(make_speech(1, 30))
    gateway.run(lambda: len(gateway.sessions[61].rows) == 30)
    load = gateway.expect(Load)
    assert load.steps >= steps + 20
    assert load.used == 1
    assert load.step_p99_ms >= load.step_p50_ms > 0


def test_metrics_and_readiness_are_served_over_http(gateway: Fixture, worker: Fixture, make_speech: Speech) -> None:
    gateway.open(71)
    gateway.sessions[71].say(make_speech(1, 30))
    gateway.sessions[71].flush(1)
    gateway.run(lambda: gateway.sessions[71].answers)
    text = scrape(worker)
    values = {line.split()[0]: float(line.split()[1]) for line in text.splitlines() if not line.startswith("#")}
    assert values["asr_model_step_duration_count"] >= 36
    assert values["asr_worker_frames_total"] >= 36
    assert values["asr_worker_slots_used"] == 1
    assert values["asr_worker_slots_free"] == 3
    assert values["asr_worker_words_total"] > 0
    assert (scrape(worker, "/readyz"), scrape(worker, "/healthz")) == ("ready\n", "ok\n")


def test_a_worker_that_restarts_is_another_one(start_worker: Fixture, connect: Fixture, tmp_path: Any) -> None:
    bind = f"ipc://{tmp_path}/socket"
    worker = start_worker("--fake-slots", "1", bind=bind)
    gateway = connect(worker)
    before = gateway.hello()
    gateway.open(1)
    worker.stop(9)
    start_worker("--fake-slots", "1", bind=bind)
    gateway.send(Heartbeat())
    after = gateway.expect(Welcome)
    assert after.worker != before.worker
    assert after.fingerprint == before.fingerprint
    gateway.send(audio(1, 0))
    assert gateway.expect(Evict).code == "unknown_session"
    assert gateway.open(2) == ready(2, 0)


def test_blocks_name_only_sessions_of_their_gateway(
    gateway: Fixture, connect: Fixture, worker: Fixture, make_speech: Speech
) -> None:
    other = connect(worker)
    other.hello()
    other.open(82)
    gateway.open(81)
    for home, number in ((gateway, 81), (other, 82)):
        home.sessions[number].say(make_speech(number, 20))
    blocks = [message for _ in range(3) if isinstance(message := other.receive(0.05), StepBlock)]
    gateway.run(lambda: len(gateway.sessions[81].rows) == 20)
    other.run(lambda: len(other.sessions[82].rows) == 20)
    assert all(set(block.sessions.tolist()) == {82} for block in blocks)
    assert {len(gateway.sessions[81].rows), len(other.sessions[82].rows)} == {20}
    other.close(82)
