import json
from typing import Any

import msgpack
import pytest

from asr_cli.messages import SHOWN_CHARS, excerpt, from_answer, from_packet
from asr_cli.usage import UsageError

NONE_OF_OURS = r"^the service answers with what is no message of the protocol: "

MESSAGES: list[dict[str, Any]] = [
    {"type": "Ready"},
    {"type": "Step", "step_idx": 1, "prs": [0.5], "buffered_pcm": 0},
    {"type": "Word", "text": "one", "start_time": 0.5},
    {"type": "EndWord", "stop_time": 1},
    {"type": "FromTomorrow", "text": 3},
]

WRONG: list[Any] = [
    None,
    1,
    {"a": 1},
    {"type": 1},
    {"type": "Word", "start_time": 0.5},
    {"type": "Word", "text": 3, "start_time": 0.5},
    {"type": "EndWord", "stop_time": "soon"},
    {"type": "Step", "step_idx": None},
    {"type": "Error"},
]


def test_messages_pass_and_so_do_types_that_are_not_known_yet() -> None:
    assert [from_packet(msgpack.packb(message)) for message in MESSAGES] == MESSAGES
    assert from_answer(json.dumps(MESSAGES).encode()) == MESSAGES


@pytest.mark.parametrize("message", WRONG, ids=str)
def test_what_is_no_message_is_refused(message: Any) -> None:
    with pytest.raises(UsageError, match=NONE_OF_OURS):
        from_packet(msgpack.packb(message))
    with pytest.raises(UsageError, match=NONE_OF_OURS):
        from_answer(json.dumps([message]).encode())


@pytest.mark.parametrize("packet", [b"", b"\xc1", msgpack.packb({"type": "Ready"}) * 2, b"\x81\xa4type\xa2\xff\xff"])
def test_a_packet_that_is_no_messagepack_is_refused(packet: bytes) -> None:
    with pytest.raises(UsageError, match=NONE_OF_OURS):
        from_packet(packet)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "nothing; see --url"),
        (b"<html>\n<p>Welcome</p>", "<html> <p>Welcome</p>; see --url"),
        (b"\xff\xfe", r"\\xff\\xfe; see --url"),
        (b"null", "None; see --url"),
        (b'{"error": "x"}', "{'error': 'x'}; see --url"),
    ],
)
def test_an_answer_that_is_no_list_of_messages_is_shown(body: bytes, what: str) -> None:
    with pytest.raises(UsageError, match=NONE_OF_OURS + what + "$"):
        from_answer(body)


def test_an_error_is_what_the_service_says() -> None:
    error = {"type": "Error", "message": "no free channels"}
    with pytest.raises(UsageError, match=r"^the service says: no free channels$"):
        from_packet(msgpack.packb(error))
    with pytest.raises(UsageError, match=r"^the service says: no free channels$"):
        from_answer(json.dumps([error]).encode())


def test_what_the_service_says_moves_no_cursor() -> None:
    with pytest.raises(UsageError, match=r"^the service says: one \[2Jtwo$"):
        from_packet(msgpack.packb({"type": "Error", "message": "one\n\x1b[2Jtwo"}))


def test_an_excerpt_is_short_and_moves_no_cursor() -> None:
    assert excerpt("one\r\n\x1b[2Jtwo\x00") == "one [2Jtwo"
    assert excerpt("x" * 1000) == "x" * SHOWN_CHARS + "..."
