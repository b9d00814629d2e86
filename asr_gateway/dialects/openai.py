"""OpenAI's file API, as far as it makes sense here: what a form asks for, and the answers. Pure.

``POST /v1/audio/transcriptions`` is what programs speak that know Whisper: its SDKs, and what was built with them.
``model`` is the name of a module. Fields that could change nothing here (``language``, ``prompt``, ``temperature``) are
taken and passed over, as are unknown ones; what would promise something else (``stream``) is refused.

Source: the API reference of OpenAI, "Create transcription"; tried with its Python SDK, version 3.57.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asr_gateway.dialects.kyutai import fields as message_fields
from shared.errors import AsrError, BadMessageError
from shared.messages import StepEvent
from shared.subtitles import end_of, make_cues, split_into_groups, to_srt, to_vtt
from shared.transcript import TimedWord, plain_text, timed_words

FORMATS: Final = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES: Final = ("word", "segment")
_FORMAT: Final = "response_format"
_GRANULARITIES: Final = "timestamp_granularities[]"
_UNKNOWN_LANGUAGE: Final = "unknown"
_FAULT_FROM: Final = 500
_SHOWN: Final = 40
_ONLY_WHISPER_KNOWS: Final = {
    "seek": 0, "tokens": (), "temperature": 0.0, "avg_logprob": 0.0, "compression_ratio": 1.0, "no_speech_prob": 0.0,
}  # fmt: skip
"""Of a segment. Readers with fixed types miss them if they are not there."""


class UnknownModelError(BadMessageError):
    """A request names a model that is not served here."""

    code = "unknown_module"
    http_status = 404


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a form asks for, beside its file."""

    module: str
    format: str
    granularities: tuple[str, ...]
    language: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of an answer, and what it is."""

    text: str
    content_type: str


def read_form(form: Mapping[str, Sequence[str]], modules: Sequence[str]) -> Asked:
    """Return what the fields of a form ask for; ``model`` may be left out where there is one module only.

    Raises:
        UnknownModelError: ``model`` is none of the modules.
        BadMessageError: a field has a value that is not allowed; names the field, the value and what is allowed.
    """
    module = _one(form, "model") or (modules[0] if len(modules) == 1 else "")
    if module not in modules:
        raise _unknown(module, modules)
    if (stream := _one(form, "stream")).lower() not in ("", "false", "0"):
        message = (
            f"stream={stream[:_SHOWN]!r}: the answer to a file comes in one piece; a WebSocket has words as they come"
        )
        raise BadMessageError(message)
    wanted = _one(form, _FORMAT) or FORMATS[0]
    if wanted not in FORMATS:
        raise _not_allowed(_FORMAT, wanted, FORMATS)
    granularities = (*form.get(_GRANULARITIES, ()), *form.get(_GRANULARITIES.removesuffix("[]"), ()))
    for granularity in granularities:
        if granularity not in GRANULARITIES:
            raise _not_allowed(_GRANULARITIES, granularity, GRANULARITIES)
    if granularities and wanted != "verbose_json":
        message = f"{_GRANULARITIES}: needs {_FORMAT} verbose_json, not {wanted}"
        raise BadMessageError(message)
    return Asked(
        module=module,
        format=wanted,
        granularities=granularities or ("segment",),
        language=_one(form, "language")[:_SHOWN] or _UNKNOWN_LANGUAGE,
    )


def _one(form: Mapping[str, Sequence[str]], name: str) -> str:
    values = form.get(name, ())
    if len(values) > 1:
        message = f"{name}: given {len(values)} times; once is allowed"
        raise BadMessageError(message)
    return values[0] if values else ""


def _not_allowed(name: str, value: str, allowed: Sequence[str]) -> BadMessageError:
    return BadMessageError(f"{name}={value[:_SHOWN]!r}: allowed are {', '.join(allowed)}")


def answer(asked: Asked, events: Sequence[StepEvent], audio_s: float) -> Answer:
    """Return the answer to a file of ``audio_s`` seconds in which this was heard."""
    words = timed_words(map(message_fields, events))
    text = plain_text(words)
    match asked.format:
        case "text":
            return Answer(text + "\n", "text/plain")
        case "srt":
            return Answer(to_srt(make_cues(words)), "text/plain")
        case "vtt":
            return Answer(to_vtt(make_cues(words)), "text/vtt")
        case "verbose_json":
            return _json(_verbose(asked, words, text, audio_s))
        case _:
            return _json({"text": text, "usage": _usage(audio_s)})


def _verbose(asked: Asked, words: Sequence[TimedWord], text: str, audio_s: float) -> dict[str, Any]:
    said: dict[str, Any] = {
        "task": "transcribe", "language": asked.language, "duration": round(audio_s, 3), "text": text,
    }  # fmt: skip
    if "word" in asked.granularities:
        said["words"] = [{"word": word.text, "start": word.start_s, "end": end_of(word)} for word in words]
    if "segment" in asked.granularities:
        said["segments"] = [
            {"id": number, "start": group[0].start_s, "end": end_of(group[-1]), "text": plain_text(group)}
            | _ONLY_WHISPER_KNOWS
            for number, group in enumerate(split_into_groups(words))
        ]
    return said | {"usage": _usage(audio_s)}


def _usage(audio_s: float) -> dict[str, Any]:
    return {"type": "duration", "seconds": math.ceil(audio_s)}


def error(error: AsrError) -> Answer:
    """Return why a request is refused."""
    kind = "server_error" if error.http_status >= _FAULT_FROM else "invalid_request_error"
    return _json({"error": {"message": str(error), "type": kind, "param": None, "code": error.code}})


def models(modules: Sequence[str]) -> Answer:
    """Return the list of what ``model`` may be."""
    return _json({"object": "list", "data": [_facts(name) for name in modules]})


def model(name: str, modules: Sequence[str]) -> Answer:
    """Return the entry of one model.

    Raises:
        UnknownModelError: it is none of the modules.
    """
    if name not in modules:
        raise _unknown(name, modules)
    return _json(_facts(name))


def _facts(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "asr-streaming"}


def _unknown(name: str, modules: Sequence[str]) -> UnknownModelError:
    return UnknownModelError(f"model={name[:_SHOWN]!r}: not served here; allowed: {', '.join(modules)}")


def _json(said: Mapping[str, Any]) -> Answer:
    return Answer(json.dumps(said, ensure_ascii=False), "application/json")
