"""What one client is sent: finished WebSocket frames, written to its transport at once.

There is no second task, and what is held lasts no longer than one step's results are handed out: how much the client
has left unread is how much the transport still holds.
"""

import asyncio
from collections.abc import Callable

from asr_gateway.core.clocks import ClientClocks


class WebSocketWriter:
    """Writes to one client.

    Args:
        transport: of the connection.
        clocks: told when something is sent, and how long the client has left too much unread.
        limit_bytes: more than this unread is too much; at half of it, it is well again.
        on_change: called when ``is_full`` has changed.
    """

    __slots__ = (
        "_clocks",
        "_held",
        "_limit_bytes",
        "_loop",
        "_on_change",
        "_transport",
        "hold",
        "is_closed",
        "is_full",
        "sent_bytes",
    )

    def __init__(
        self, *, transport: asyncio.Transport, clocks: ClientClocks, limit_bytes: int, on_change: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._clocks = clocks
        self._limit_bytes = limit_bytes
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self.is_full = False
        """Whether the client has left too much unread."""
        self.is_closed = False
        """Set when the last frame was written: from then on nothing is."""
        self.sent_bytes = 0
        self._held: list[bytes] = []
        self.hold = self._held.append
        """Send a frame together with those that follow: ``send_held`` must be called in the same turn of the loop."""

    def send_held(self) -> None:
        """Send what is held, as one packet, unless the connection has ended."""
        held, transport = self._held, self._transport
        if not held:
            return
        frames = held[0] if len(held) == 1 else b"".join(held)
        held.clear()
        if self.is_closed or transport.is_closing():
            return
        transport.write(frames)
        self.sent_bytes += len(frames)
        self._clocks.sent_at = self._loop.time()
        if not self.is_full and transport.get_write_buffer_size() > self._limit_bytes:
            self._set_full(is_full=True)

    def write(self, frame: bytes) -> None:
        """Send one frame behind those that are held, unless the connection has ended."""
        self._held.append(frame)
        self.send_held()

    def look(self) -> None:
        """See whether the client has read; call now and then."""
        if self.is_full and self._transport.get_write_buffer_size() <= self._limit_bytes // 2:
            self._set_full(is_full=False)

    def _set_full(self, *, is_full: bool) -> None:
        self.is_full = is_full
        if is_full:
            self._clocks.fill_output(self._loop.time())
        else:
            self._clocks.drain_output()
        self._on_change()
