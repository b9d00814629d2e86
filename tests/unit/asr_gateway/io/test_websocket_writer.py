import asyncio
from collections.abc import Callable

from asr_gateway.core.clocks import ClientClocks, ClockLimits, Verdict
from asr_gateway.io.websocket_writer import WebSocketWriter

LIMITS = ClockLimits(ping_after_s=1e9, silent_s=1e9, idle_s=1e9, slow_s=0.0)


class Pipe(asyncio.Transport):
    """A transport whose other end reads when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.packets: list[bytes] = []
        self.n_unread = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.packets.append(bytes(data))
        self.n_unread += len(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.n_unread


async def made(on_change: Callable[[], None] = lambda: None) -> tuple[WebSocketWriter, Pipe, ClientClocks]:
    pipe, clocks = Pipe(), ClientClocks(LIMITS, 0.0)
    return WebSocketWriter(transport=pipe, clocks=clocks, limit_bytes=10, on_change=on_change), pipe, clocks


async def test_what_is_held_leaves_in_order_as_one_packet() -> None:
    writer, pipe, _ = await made()

    writer.hold(b"step")
    writer.hold(b"word")
    assert pipe.packets == []
    writer.send_held()
    writer.send_held()

    assert pipe.packets == [b"stepword"]
    assert writer.sent_bytes == 8


async def test_what_is_written_never_overtakes_what_is_held() -> None:
    writer, pipe, _ = await made()

    writer.hold(b"word")
    writer.write(b"close")

    assert pipe.packets == [b"wordclose"]


async def test_a_client_that_leaves_too_much_unread_is_full_until_half_of_it_is_read() -> None:
    changes: list[bool] = []
    writer, pipe, clocks = await made(lambda: changes.append(writer.is_full))

    for n_unread, is_full in ((0, False), (10, False), (11, True), (6, True), (5, False)):
        pipe.n_unread = n_unread - 1
        writer.write(b"x") if n_unread > 6 else setattr(pipe, "n_unread", n_unread)
        writer.look()
        assert writer.is_full is is_full, n_unread
        assert (clocks.check(1e6, is_busy=False) is Verdict.SLOW) is is_full

    assert changes == [True, False]


async def test_nothing_is_sent_behind_the_last_frame() -> None:
    writer, pipe, _ = await made()

    writer.write(b"close")
    writer.is_closed = True
    writer.hold(b"late")
    writer.send_held()

    assert pipe.packets == [b"close"]
