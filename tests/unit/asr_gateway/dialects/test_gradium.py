import base64
import io
import json
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_gateway.audio.resample import Resampler
from asr_gateway.core.dialect import Dialect, FlushReceived, OpusReceived, PiecesReceived, SetupReceived
from asr_gateway.dialects.gradium import Gradium
from shared.errors import BadAudioError, BadMessageError, NoFreeSlotError
from shared.messages import EventKind, StepEvent
from shared.units import Epoch, SessionId


def dialect_of(input_format: str | None = "pcm") -> Gradium:
    dialect = Gradium("asr", Resampler)
    if input_format is not None:
        assert dialect.decode(said(type="setup", model_name="default", input_format=input_format)) == SetupReceived()
    return dialect


def said(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def audio(data: bytes) -> bytes:
    return said(type="audio", audio=base64.b64encode(data).decode())


def heard(dialect: Dialect, data: bytes) -> NDArray[np.float32]:
    pcm = dialect.decode(audio(data))
    assert isinstance(pcm, np.ndarray)
    return pcm


def event(kind: EventKind, **fields: Any) -> StepEvent:
    facts: dict[str, Any] = {"text": "", "time_s": 0.0, "id": None} | fields
    return StepEvent(session=SessionId(1), epoch=Epoch(1), kind=kind, **facts)


def test_pcm_is_16_bits_little_endian() -> None:
    pcm = heard(dialect_of(), np.array([0, 16384, -32768, 32767], "<i2").tobytes())
    assert pcm.dtype == np.float32
    assert pcm.tolist() == [0.0, 0.5, -1.0, 32767 / 32768]


def test_a_sample_may_be_cut_in_two() -> None:
    data, dialect = np.arange(-5, 5, dtype="<i2").tobytes(), dialect_of()
    pieces = [heard(dialect, data[begin : begin + 3]) for begin in range(0, len(data), 3)]
    assert (np.concatenate(pieces) * 32768).tolist() == list(range(-5, 5))


@pytest.mark.parametrize(
    ("input_format", "rate", "width"), [("pcm_16000", 16_000, 2), ("pcm_48000", 48_000, 2), ("ulaw_8000", 8_000, 1)]
)
def test_other_rates_come_out_at_24_khz_whole(input_format: str, rate: int, width: int) -> None:
    dialect = dialect_of(input_format)
    data = np.random.default_rng(1).integers(0, 256, rate * width // 2, np.uint8).tobytes()
    pieces = [heard(dialect, data[begin : begin + 641]) for begin in range(0, len(data), 641)]

    flush = dialect.decode(said(type="flush", flush_id="a"))

    assert isinstance(flush, FlushReceived)
    assert flush.samples is not None
    assert sum(map(len, pieces)) + len(flush.samples) == 12_000


def test_what_comes_after_a_flush_is_a_stream_of_its_own() -> None:
    dialect = dialect_of("pcm_16000")
    data = np.random.default_rng(1).integers(-9999, 9999, 8_000).astype("<i2").tobytes()
    once = np.concatenate([heard(dialect, data), dialect.decode(said(type="flush")).samples])  # type: ignore[union-attr, list-item]
    again = np.concatenate([heard(dialect, data), dialect.decode(said(type="end_of_stream")).samples])  # type: ignore[union-attr, list-item]
    np.testing.assert_array_equal(once, again)


def test_a_wav_says_its_rate_itself() -> None:
    file, pcm = io.BytesIO(), np.random.default_rng(1).integers(-9999, 9999, (8_000, 2)).astype("<i2")
    soundfile.write(file, pcm, 16_000, format="WAV")
    dialect, data = dialect_of("wav"), file.getvalue()
    pieces = [heard(dialect, data[begin : begin + 333]) for begin in range(0, len(data), 333)]
    end = dialect.decode(said(type="end_of_stream"))
    assert isinstance(end, FlushReceived)
    assert end.samples is not None

    resampler = Resampler(16_000)
    mono = pcm.astype(np.float32).mean(axis=1) / 32768
    expected = np.concatenate([resampler.feed(mono.astype(np.float32)), resampler.flush()])
    np.testing.assert_allclose(np.concatenate([*pieces, end.samples]), expected, atol=1e-6)


def test_a_wav_that_is_none_is_refused() -> None:
    with pytest.raises(BadAudioError, match="no WAV"):
        heard(dialect_of("wav"), bytes(12))


@pytest.mark.parametrize("input_format", ["pcm", "ulaw_8000", "wav"])
def test_a_long_message_is_decoded_a_second_at_a_time(input_format: str) -> None:
    rate, width = (8_000, 1) if input_format == "ulaw_8000" else (24_000, 2)
    data = np.random.default_rng(1).integers(0, 256, 10 * rate * width, np.uint8).tobytes()
    if input_format == "wav":
        file = io.BytesIO()
        soundfile.write(file, np.frombuffer(data, "<i2"), rate, format="WAV")
        data = file.getvalue()
    dialect = dialect_of(input_format)

    long = dialect.decode(audio(data))

    assert isinstance(long, PiecesReceived)
    pieces = list(long.pieces)
    assert max(map(len, pieces)) <= 27_000
    end = dialect.decode(said(type="end_of_stream"))
    assert isinstance(end, FlushReceived)
    assert end.samples is not None
    assert sum(map(len, pieces)) + len(end.samples) == 240_000


def test_a_flush_in_the_midst_of_a_sample_does_not_shift_the_bytes() -> None:
    data, dialect = np.arange(-5, 5, dtype="<i2").tobytes(), dialect_of()
    first = heard(dialect, data[:5])
    flush = dialect.decode(said(type="flush"))
    assert isinstance(flush, FlushReceived)
    assert flush.samples is not None
    rest = heard(dialect, data[5:])
    assert (np.concatenate([first, flush.samples, rest]) * 32768).tolist() == list(range(-5, 5))


def test_opus_is_passed_on() -> None:
    assert dialect_of("opus").decode(audio(b"OggS")) == OpusReceived(b"OggS")


def test_flushes_are_answered_by_the_names_that_clients_gave_them() -> None:
    dialect = dialect_of()
    names: list[Any] = ["1", 7, None, "1", "\ud800"]
    asked = [dialect.decode(said(type="flush", flush_id=name)) for name in names]
    numbers = [flush.id for flush in asked if isinstance(flush, FlushReceived)]
    assert len(set(numbers)) == 5
    answers = [json.loads(dialect.event(event(EventKind.FLUSHED, id=number))) for number in numbers]
    assert answers == [{"type": "flushed", "flush_id": name} for name in names]
    assert not dialect.is_finished


def test_the_end_is_answered_and_is_the_end() -> None:
    dialect = dialect_of()
    end = dialect.decode(said(type="end_of_stream"))
    assert isinstance(end, FlushReceived)
    assert not dialect.is_finished
    assert json.loads(dialect.event(event(EventKind.FLUSHED, id=end.id))) == {"type": "end_of_stream"}
    assert dialect.is_finished
    for late in (audio(bytes(3840)), said(type="end_of_stream"), said(type="flush")):
        nothing = dialect.decode(late)
        assert isinstance(nothing, np.ndarray)
        assert not len(nothing)


def test_ready_waits_for_the_setup() -> None:
    dialect = dialect_of(None)
    assert dialect.ready(1, 6) == b""
    dialect.decode(said(type="setup", model_name="asr", input_format="pcm", json_config={"language": "en"}))
    ready = json.loads(dialect.ready(17, 6))
    assert (ready["type"], ready["model_name"], ready["sample_rate"], ready["frame_size"]) == (
        "ready",
        "asr",
        24000,
        1920,
    )
    assert ready["request_id"] == "17"
    assert ready["delay_in_frames"] == ready["delay_in_tokens"] == 6


def test_what_a_step_and_its_words_say() -> None:
    dialect = dialect_of()
    pauses = np.array([[0.25, 0.5, 0.75, 1.0], [0.0, 0.12345, 0.0, 0.0]], np.float32)
    step = json.loads(dialect.step(3, dialect.pack_pauses(pauses)[1], 0))
    assert step == {
        "type": "step",
        "vad": [
            {"horizon_s": horizon_s, "inactivity_prob": pause}
            for horizon_s, pause in ((0.5, 0.0), (1.0, 0.1235), (2.0, 0.0), (3.0, 0.0))
        ],
        "step_idx": 3,
        "step_duration_s": 0.08,
        "total_duration_s": 0.24,
    }
    word = dialect.event(event(EventKind.WORD, text="héllo", time_s=0.08))
    assert json.loads(word) == {"type": "text", "text": "héllo", "start_s": 0.08, "stream_id": None}
    end = dialect.event(event(EventKind.END_WORD, time_s=0.5))
    assert json.loads(end) == {"type": "end_text", "stop_s": 0.5, "stream_id": None}


def test_all_connections_share_what_encodes_pauses() -> None:
    assert dialect_of().pack_pauses is dialect_of().pack_pauses


def test_an_error_has_the_close_code_and_ours() -> None:
    assert json.loads(dialect_of().error(NoFreeSlotError())) == {
        "type": "error", "message": "no free channels", "code": 1013, "reason": "no_free_slot",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (said(type="audio", audio=""), "the first message must be setup, not audio"),
        (said(type="end_of_stream"), "the first message must be setup, not end_of_stream"),
        (said(type="setup", model_name="gpt"), "model_name 'gpt' is not served by this path; allowed: default, asr"),
        (said(type="setup", model_name=["x"]), r"model_name \['x'\] is not served"),
        (said(type="setup", input_format="mp3"), "input_format 'mp3' is not known; allowed: pcm, pcm_8000, "),
        (said(type="setup", input_format=["pcm"]), r"input_format \['pcm'\] is not known"),
        (said(type="hello"), "type 'hello' is unknown; known are setup, audio, flush, end_of_stream"),
        (said(kind="audio"), "type None is unknown"),
        (b"[1]", "a message must be a JSON object, not list"),
        (b"{", "a message must be one JSON object"),
        (b"\xff\xfe", "a message must be one JSON object"),
        (b"[" * 100_000, "a message must be one JSON object"),
    ],
)
def test_what_is_wrong_before_the_setup_is_named(message: bytes, reason: str) -> None:
    with pytest.raises(BadMessageError, match=reason):
        dialect_of(None).decode(message)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (said(type="setup"), "setup: came twice"),
        (said(type="audio", audio=[1]), "the field audio must be base64, not list"),
        (said(type="audio"), "the field audio must be base64, not NoneType"),
        (said(type="audio", audio="ä"), "the field audio must be base64"),
        (said(type="audio", audio="AAA"), "the field audio must be base64"),
        (said(type="flush", flush_id=[1]), r"flush_id \[1\] must be a string or an integer"),
        (said(type="flush", flush_id="x" * 41), "must be a string or an integer of at most 40 characters"),
    ],
)
def test_what_is_wrong_behind_the_setup_is_named(message: bytes, reason: str) -> None:
    with pytest.raises(BadMessageError, match=reason):
        dialect_of().decode(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["setup", "audio", "flush", "end_of_stream"]) | JSON},
    optional=dict.fromkeys(("model_name", "input_format", "audio", "flush_id", "json_config"), JSON),
)


@given(st.lists(MESSAGES, max_size=4), st.booleans())
def test_no_message_does_more_than_to_be_refused(messages: list[dict[str, Any]], is_set_up: bool) -> None:  # noqa: FBT001
    dialect = dialect_of("pcm" if is_set_up else None)
    with suppress(BadMessageError):
        for message in messages:
            asked = dialect.decode(json.dumps(message).encode())
            if isinstance(asked, FlushReceived):
                dialect.event(event(EventKind.FLUSHED, id=asked.id))
