"""What a service says, before it is believed: whoever answers at an address need not speak the protocol."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack

from asr_cli.usage import UsageError

FIELDS: Final[Mapping[str, Mapping[str, type | tuple[type, ...]]]] = {
    "Word": {"text": str, "start_time": (int, float)},
    "EndWord": {"stop_time": (int, float)},
    "Step": {"step_idx": int},
    "Error": {"message": str},
}
"""The fields that are read here, by the message's type; other types have none."""

SHOWN_CHARS: Final = 200


def from_packet(packet: bytes) -> Mapping[str, Any]:
    """Return the message in one binary frame of a WebSocket.

    Raises:
        UsageError: it holds none, or an ``Error``: says which.
    """
    return _checked(_decoded(msgpack.unpackb, packet))


def from_answer(body: bytes) -> list[Mapping[str, Any]]:
    """Return the messages in the answer to a POST.

    Raises:
        UsageError: as ``from_packet``.
    """
    messages = _decoded(json.loads, body)
    if not isinstance(messages, list):
        raise _none_of_ours(messages)
    return [_checked(message) for message in messages]


def excerpt(text: str) -> str:
    """Return the beginning of ``text``, which may be long and may hold what a terminal obeys, as one plain line."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= SHOWN_CHARS else line[:SHOWN_CHARS] + "..."


def _decoded(decode: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return decode(data)
    except ValueError as error:  # which msgpack's own errors are as well
        raise _none_of_ours(data) from error


def _checked(message: Any) -> Mapping[str, Any]:
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str):
        raise _none_of_ours(message)
    if not all(isinstance(message.get(name), allowed) for name, allowed in FIELDS.get(kind, {}).items()):
        raise _none_of_ours(message)
    if kind == "Error":
        complaint = f"the service says: {excerpt(message['message'])}"
        raise UsageError(complaint)
    found: Mapping[str, Any] = message
    return found


def _none_of_ours(found: Any) -> UsageError:
    text = found.decode("utf-8", "backslashreplace") if isinstance(found, bytes) else repr(found)
    return UsageError(
        f"the service answers with what is no message of the protocol: {excerpt(text) or 'nothing'}; see --url"
    )
