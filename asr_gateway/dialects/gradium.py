"""Gradium's WebSocket protocol: JSON in text frames, audio in base64. The plugins of LiveKit and Pipecat speak it.

    setup ─► ready, audio ─► step, text, end_text, flush ─► flushed, end_of_stream ─► end_of_stream, close

It has what Kyutai's has under other names, and rates and telephone codecs beside it, so a `Gradium` holds what it
has to remember of one connection: the format, samples that are not complete, who asked for which flush.

``model_name`` is ``default`` or the module's name. ``json_config`` (language, delay, temperature) changes nothing here.

Source: gradium-py, ``docs/websocket_stt_description.md``; what its SDK, LiveKit's plugin and Pipecat's service send.
"""

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from asr_gateway.core.dialect import (
    ClientEvent,
    FlushReceived,
    OpusReceived,
    PiecesReceived,
    SamplesOf,
    SetupReceived,
)
from asr_gateway.core.g711 import from_a_law, from_mu_law
from asr_gateway.core.wav_stream import WavStream, from_16_bits
from shared.audio_header import MIN_RATE
from shared.errors import AsrError, BadMessageError
from shared.messages import EventKind, StepEvent
from shared.units import FRAME_SAMPLES, SAMPLE_RATE

HORIZONS_S: Final = (0.5, 1.0, 2.0, 3.0)
"""What the pause heads of Kyutai's models look ahead."""
DEFAULT_MODEL: Final = "default"
OPUS, WAV = "opus", "wav"
_FRAME_S: Final = FRAME_SAMPLES / SAMPLE_RATE
_TELEPHONE_HZ: Final = 8_000
_PCM_HZ: Final = (8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_END: Final = 0
"""Of the flush that brings the last words out; those that a client asks for count from one."""
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class _Encoding:
    rate: int
    sample_bytes: int
    decode: Callable[[bytes], NDArray[np.float32]]


_ENCODINGS: Final[dict[str, _Encoding]] = {
    "pcm": _Encoding(SAMPLE_RATE, 2, from_16_bits),
    **{f"pcm_{rate}": _Encoding(rate, 2, from_16_bits) for rate in _PCM_HZ},
    "ulaw_8000": _Encoding(_TELEPHONE_HZ, 1, from_mu_law),
    "mulaw_8000": _Encoding(_TELEPHONE_HZ, 1, from_mu_law),
    "alaw_8000": _Encoding(_TELEPHONE_HZ, 1, from_a_law),
}
FORMATS: Final = (*_ENCODINGS, OPUS, WAV)


class Resampler(Protocol):
    """Brings one stream to 24 kHz; see ``asr_gateway.audio.resample``."""

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the samples that are certain now."""
        ...

    def flush(self) -> NDArray[np.float32]:
        """Return what is left."""
        ...


def pack_pauses(pauses: NDArray[np.float32]) -> list[bytes]:
    """Encode the field ``vad`` for each row of ``pauses`` ``[n, heads]``."""
    return [
        _json(
            [
                {"horizon_s": horizon_s, "inactivity_prob": round(pause, 4)}
                for horizon_s, pause in zip(HORIZONS_S, row, strict=False)
            ]
        )
        for row in pauses.tolist()
    ]


class Gradium:
    """One connection's dialect.

    Args:
        module: that it is for.
        make_resampler: of a rate.
    """

    is_text = True
    samples_of: SamplesOf | None = None
    pack_pauses = staticmethod(pack_pauses)

    def __init__(self, module: str, make_resampler: Callable[[int], Resampler]) -> None:
        self._module = module
        self._make_resampler = make_resampler
        self._format = ""
        self._wav: WavStream | None = None
        self._resampler: Resampler | None = None
        self._rest = b""
        """Half of a sample."""
        self._flushes: dict[int, Any] = {}
        """By the numbers that they go by here, what clients call the flushes that are under way."""
        self._n_flushes = 0
        self._is_ended = False
        self.is_finished = False

    # --- decoding -----------------------------------------------------------------------------------------

    def decode(self, data: bytes | bytearray) -> ClientEvent:
        """Return what one message says.

        Raises:
            BadMessageError: it is no message of this dialect, or not in its place; names what is wrong.
        """
        fields = _fields(data)
        kind = fields.get("type")
        if self._is_ended:
            # A microphone may be a little late to stop. The last words are on their way.
            return np.zeros(0, np.float32)
        match kind:
            case "setup" if not self._format:
                return self._set_up(fields)
            case "setup":
                message = "setup: came twice"
                raise BadMessageError(message)
            case "audio" | "flush" | "end_of_stream" if not self._format:
                message = f"the first message must be setup, not {kind}"
                raise BadMessageError(message)
            case "audio":
                return self._audio(fields.get("audio"))
            case "flush":
                return self._flush(fields.get("flush_id"))
            case "end_of_stream":
                self._is_ended = True
                return FlushReceived(_END, self._last_samples())
            case _:
                message = f"type {_shown(kind)} is unknown; known are setup, audio, flush, end_of_stream"
                raise BadMessageError(message)

    def _set_up(self, fields: Mapping[str, Any]) -> SetupReceived:
        model, audio = fields.get("model_name") or DEFAULT_MODEL, fields.get("input_format") or "pcm"
        if model not in (DEFAULT_MODEL, self._module):
            allowed = f"{DEFAULT_MODEL}, {self._module}"
            message = f"setup: model_name {_shown(model)} is not served by this path; allowed: {allowed}"
            raise BadMessageError(message)
        if not isinstance(audio, str) or audio not in FORMATS:
            message = f"setup: input_format {_shown(audio)} is not known; allowed: {', '.join(FORMATS)}"
            raise BadMessageError(message)
        self._format = audio
        self._wav = WavStream() if audio == WAV else None
        self._begin_stream()
        return SetupReceived()

    def _begin_stream(self) -> None:
        if self._format in _ENCODINGS:
            self._resampler = self._make_resampler(_ENCODINGS[self._format].rate)
        elif self._wav is not None and self._wav.rate is not None:
            self._resampler = self._make_resampler(self._wav.rate)

    def _audio(self, encoded: Any) -> ClientEvent:
        if not isinstance(encoded, str):
            message = f"audio: the field audio must be base64, not {type(encoded).__name__}"
            raise BadMessageError(message)
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError) as error:
            message = f"audio: the field audio must be base64: {error}"
            raise BadMessageError(message[:200]) from None
        if self._format == OPUS:
            return OpusReceived(data)
        # A message may hold minutes of telephone audio: no more than a second of it at a time.
        return self._samples(data) if len(data) <= self._second_bytes() else PiecesReceived(self._pieces(data))

    def _pieces(self, data: bytes) -> Iterator[NDArray[np.float32]]:
        begin = 0
        while begin < len(data):
            end = begin + self._second_bytes()
            yield self._samples(data[begin:end])
            begin = end

    def _second_bytes(self) -> int:
        """Return how many bytes are a second, or less of it where that is not known yet."""
        if self._wav is not None:
            return self._wav.second_bytes or MIN_RATE
        encoding = _ENCODINGS[self._format]
        return encoding.rate * encoding.sample_bytes

    def _samples(self, data: bytes) -> NDArray[np.float32]:
        if self._wav is not None:
            samples = self._wav.feed(data)
            if self._resampler is None:
                self._begin_stream()
        else:
            encoding = _ENCODINGS[self._format]
            data = self._rest + data
            n_whole = len(data) - len(data) % encoding.sample_bytes
            self._rest = data[n_whole:]
            samples = encoding.decode(data[:n_whole])
        return samples if self._resampler is None else self._resampler.feed(samples)

    def _flush(self, flush_id: Any) -> FlushReceived:
        if not isinstance(flush_id, str | int | None) or len(str(flush_id)) > _SHOWN:
            message = (
                f"flush: flush_id {_shown(flush_id)} must be a string or an integer of at most {_SHOWN} characters"
            )
            raise BadMessageError(message)
        self._n_flushes += 1
        # As many as a session may have under way: more are refused there.
        self._flushes[self._n_flushes] = flush_id
        return FlushReceived(self._n_flushes, self._last_samples())

    def _last_samples(self) -> NDArray[np.float32] | None:
        """Return what the resampler still holds; what comes next is resampled on its own."""
        if self._resampler is None:
            return None
        samples = self._resampler.flush()
        self._begin_stream()
        return samples

    # --- encoding -----------------------------------------------------------------------------------------

    def ready(self, session: int, delay_frames: int) -> bytes:
        """Encode: the session has a slot; empty before ``setup`` has come."""
        if not self._format:
            return b""
        facts = {
            "request_id": str(session), "model_name": self._module,
            "sample_rate": SAMPLE_RATE, "frame_size": FRAME_SAMPLES,
            "delay_in_frames": delay_frames, "delay_in_tokens": delay_frames, "text_stream_names": [],
        }  # fmt: skip
        return _json({"type": "ready"} | facts)

    def step(self, step_idx: int, packed_pauses: bytes, buffered_pcm: int) -> bytes:
        """Encode one processed frame."""
        del buffered_pcm
        tail = f',"step_idx":{step_idx},"step_duration_s":{_FRAME_S:g},"total_duration_s":{step_idx * _FRAME_S:.2f}}}'
        return b'{"type":"step","vad":' + packed_pauses + tail.encode()

    def event(self, event: StepEvent) -> bytes:
        """Encode a word, the end of a word, or the answer to a flush or to the end."""
        if event.kind is EventKind.FLUSHED and event.id == _END:
            self.is_finished = True
        return _json(self.fields(event))

    def fields(self, event: StepEvent) -> dict[str, Any]:
        """Return what the message that ``event`` encodes holds."""
        match event.kind:
            case EventKind.WORD:
                return {"type": "text", "text": event.text, "start_s": event.time_s, "stream_id": None}
            case EventKind.END_WORD:
                return {"type": "end_text", "stop_s": event.time_s, "stream_id": None}
            case EventKind.FLUSHED if event.id == _END:
                return {"type": "end_of_stream"}
            case EventKind.FLUSHED:
                return {"type": "flushed", "flush_id": self._flushes.pop(event.id or 0, None)}
            case EventKind.MARKER | EventKind.RESET_DONE:
                # Nobody can ask for these here.
                return {"type": event.kind.name.lower()}

    def error(self, error: AsrError) -> bytes:
        """Encode why the session ends."""
        return _json({"type": "error", "message": str(error), "code": error.close_code, "reason": error.code})


def _fields(data: bytes | bytearray) -> dict[str, Any]:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        message = f"a message must be one JSON object: {error}"
        raise BadMessageError(message[:200]) from None
    if not isinstance(fields, dict):
        message = f"a message must be a JSON object, not {type(fields).__name__}"
        raise BadMessageError(message)
    return fields


def _shown(value: Any) -> str:
    return repr(value)[: _SHOWN + 2]


def _json(value: Any) -> bytes:
    # ASCII: what a client calls its flush may be half of a surrogate pair, of which there is no UTF-8.
    return json.dumps(value, separators=(",", ":")).encode("ascii")
