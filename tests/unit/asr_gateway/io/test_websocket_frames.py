import asyncio
from typing import Any

import pytest
from aiohttp import WSMsgType
from aiohttp._websocket.reader import WebSocketDataQueue
from aiohttp.http_websocket import WebSocketReader
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_gateway.io.websocket_frames import MAX_FRAMES, Ears, Frames, unmasked

MAX_BYTES = 60_000
BINARY, TEXT, PING, PIECE, LAST_PIECE = 0x82, 0x81, 0x89, 0x02, 0x80


def frame(first: int, payload: bytes, mask: bytes = b"\x01\x80\xff\x07") -> bytes:
    n_bytes = len(payload)
    if n_bytes < 126:
        head = bytes((first, 0x80 | n_bytes))
    elif n_bytes < 1 << 16:
        head = bytes((first, 0xFE)) + n_bytes.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + n_bytes.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Protocol:
    """What the queue of aiohttp's parser knows of the connection."""

    _reading_paused = False

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False


class Client:
    """Takes what it is given at once, until it is told to refuse; its task sees to the rest when it is asked."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        protocol: Any = Protocol()
        self.queue = WebSocketDataQueue(protocol, 1 << 16, loop=self._loop)
        parser = WebSocketReader(self.queue, MAX_BYTES + 1, compress=False, decode_text=True)
        self.frames = Frames(parser, self.queue, MAX_BYTES)
        self.taken: list[bytes] = []
        self.heard: list[tuple[str, Any]] = []
        self.refuses = False
        self.open()

    def open(self) -> None:
        self.frames.take_now = self._take

    def _take(self, frame: bytes, begin: int) -> bool:
        if self.refuses:
            return False
        self.taken.append(bytes(unmasked(frame, begin)))
        self.heard.append(("BINARY", self.taken[-1]))
        return True

    def see_to_the_queue(self) -> None:
        while self.queue._buffer:
            message = self._loop.run_until_complete(self.queue.read())
            self.heard.append((WSMsgType(message.type).name, message.data))
        self.open()

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def client() -> Any:
    client = Client()
    yield client
    client.close()


def test_a_plain_frame_is_taken_without_the_parser(client: Any) -> None:
    for payload in (b"first", b"", b"short", bytes(126), bytes(MAX_BYTES)):
        assert client.frames.feed_data(frame(BINARY, payload)) == (False, b"")

    assert client.taken == [b"first", b"", b"short", bytes(126), bytes(MAX_BYTES)]


def test_a_plain_frame_is_put_together_from_its_reads(client: Any) -> None:
    data = frame(BINARY, b"one") + frame(BINARY, b"two" * 100)
    for byte in data:
        client.frames.feed_data(bytes((byte,)))

    assert client.taken == [b"one", b"two" * 100]


def test_what_is_refused_waits_and_everything_behind_it_too(client: Any) -> None:
    client.frames.feed_data(frame(BINARY, b"one"))
    client.refuses = True
    client.frames.feed_data(frame(BINARY, b"two"))
    client.refuses = False
    client.frames.feed_data(frame(BINARY, b"three"))
    assert client.taken == [b"one"]

    client.see_to_the_queue()
    client.frames.feed_data(frame(BINARY, b"four"))

    assert [data for _, data in client.heard] == [b"one", b"two", b"three", b"four"]
    assert client.taken == [b"one", b"four"]


def test_a_message_in_pieces_is_the_parsers_and_a_plain_one_inside_it_an_error(client: Any) -> None:
    client.frames.feed_data(frame(PIECE, b"one, "))
    client.open()

    assert client.frames.feed_data(frame(BINARY, b"two"))[0]
    assert client.taken == []
    assert client.queue.exception() is not None


def test_a_message_that_is_too_long_is_the_parsers_to_refuse(client: Any) -> None:
    client.frames.feed_data(frame(BINARY, bytes(MAX_BYTES)))

    ended, _ = client.frames.feed_data(frame(BINARY, bytes(MAX_BYTES + 1))[:8])

    assert (ended, client.taken) == (True, [bytes(MAX_BYTES)])
    assert "exceeds limit" in str(client.queue.exception())


def test_a_client_that_does_not_mask_is_refused_at_its_second_byte(client: Any) -> None:
    assert client.frames.feed_data(b"\x82") == (False, b"")
    assert client.frames.feed_data(b"\x03") == (True, b"")
    assert "must mask" in str(client.queue.exception())


def test_a_flood_of_small_frames_is_left_to_the_parser(client: Any) -> None:
    n_frames = MAX_FRAMES + 1
    client.refuses = True
    client.frames.feed_data(frame(PING, b"") + n_frames * frame(BINARY, b"x") + frame(BINARY, b"cut")[:-1])
    client.refuses = False
    client.see_to_the_queue()
    client.frames.feed_data(frame(BINARY, b"cut")[-1:])
    client.see_to_the_queue()

    assert client.heard == [("PING", b""), *n_frames * [("BINARY", b"x")], ("BINARY", b"cut")]


FRAMES: dict[bytes, list[tuple[str, Any]]] = {
    frame(BINARY, b""): [("BINARY", b"")],
    frame(BINARY, b"short"): [("BINARY", b"short")],
    frame(BINARY, bytes(range(200))): [("BINARY", bytes(range(200)))],
    frame(BINARY, bytes(MAX_BYTES)): [("BINARY", bytes(MAX_BYTES))],
    frame(PIECE, bytes(1_000)) + frame(LAST_PIECE, b""): [("BINARY", bytes(1_000))],
    frame(TEXT, b"text"): [("TEXT", "text")],
    frame(PING, b"ping"): [("PING", b"ping")],
    frame(PIECE, b"a, ") + frame(PING, b"between") + frame(LAST_PIECE, b"b"): [
        ("PING", b"between"),
        ("BINARY", b"a, b"),
    ],
}


@given(
    sent=st.lists(st.sampled_from(list(FRAMES)), max_size=12),
    cuts=st.lists(st.integers(0, 3_000)),
    acts=st.lists(st.sampled_from(["refuse", "agree", "see to the queue"])),
)
@settings(deadline=None, max_examples=150)
def test_all_that_was_sent_is_heard_in_its_order_however_it_is_cut(
    sent: list[bytes], cuts: list[int], acts: list[str]
) -> None:
    client = Client()
    stream = b"".join(sent)
    steps = iter(acts)
    for size in [*cuts, len(stream) or 1]:
        data, stream = stream[:size], stream[size:]
        if data:
            assert client.frames.feed_data(data) == (False, b"")
        match next(steps, "see to the queue"):
            case "see to the queue":
                client.see_to_the_queue()
            case act:
                client.refuses = act == "refuse"
    client.see_to_the_queue()
    client.close()

    assert client.heard == [said for one in sent for said in FRAMES[one]]


def test_a_piece_of_a_long_frame_is_no_frame_though_it_is_as_long_as_one(client: Any) -> None:
    message = bytes(range(200)) * 200  # with a length of 64 bits, of which 127 is the mark
    data = b"\x82\xff" + len(message).to_bytes(8, "big") + frame(BINARY, message)[4:]
    client.frames.feed_data(frame(BINARY, b"first"))

    client.frames.feed_data(data[: 6 + 127])
    assert client.taken == [b"first"]
    client.frames.feed_data(data[6 + 127 :])

    assert client.taken == [b"first", message]


def test_a_frame_that_is_not_masked_is_never_taken_however_it_is_cut() -> None:
    for second in range(0x80):
        for n_bytes in range(2, 16):
            client = Client()
            client.frames.feed_data(frame(BINARY, b"first"))
            client.frames.feed_data((bytes((BINARY, second)) + bytes(14))[:n_bytes])
            client.close()
            assert client.taken == [b"first"]


class Handler:
    """What aiohttp has at a transport, as far as it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self.asked.append(name)


def test_what_is_read_goes_to_the_frames_and_all_else_to_aiohttp(client: Any) -> None:
    handler: Any = Handler()
    ears = Ears(handler, client.frames)

    ears.data_received(frame(BINARY, b"one"))
    ears.pause_writing()
    ears.resume_writing()
    ears.eof_received()
    ears.connection_lost(None)

    assert client.taken == [b"one"]
    assert handler.asked == ["pause_writing", "resume_writing", "eof_received", "connection_lost"]


def test_after_the_end_nothing_is_read_and_the_connection_is_closed_once(client: Any) -> None:
    handler: Any = Handler()
    ears = Ears(handler, client.frames)

    ears.data_received(b"\x82\x03one")
    ears.data_received(b"\x82\x03two")

    assert handler.asked == ["close"]
