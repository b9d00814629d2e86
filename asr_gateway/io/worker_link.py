"""The connection of this gateway to one worker: a DEALER socket that is read by the event loop itself.

    wake(session) ──► one Outbound once a turn of the loop wakes nobody more ──► socket ──► worker
    socket's FD ──► drain, at most 256 messages a turn ──► owner.received

A block costs about as much as two frames in it, so one waits for what lies unread at the sockets of other clients. It
waits for nothing else: a turn in which nothing is read takes few microseconds.

libzmq's FD is edge-triggered, and every send or look at EVENTS consumes the edge: so after each send EVENTS is looked
at again, a drain that stopped early is scheduled again, and ``pulse`` drains once more for safety. Reading this way
costs a quarter of what ``zmq.asyncio`` does.

Each connection is an incarnation with a routing id of its own. One that is lost is thrown away with its socket, so that
nothing meant for the old one can reach the next.
"""

import asyncio
import os
import socket
import uuid
from collections import deque
from typing import Final, Protocol

import structlog
import zmq
from zmq.utils.monitor import parse_monitor_message

from asr_gateway.core.outbound import Outbound
from asr_gateway.core.session import Session
from shared.errors import LinkError
from shared.log_events import LINK_MESSAGE_REFUSED, LINK_NOT_OPENED
from shared.messages import PROTOCOL_VERSION, Heartbeat, Hello, ToGateway, ToWorker
from shared.units import LEAST_GATEWAY_TIMEOUT_S
from shared.wire import MAX_PART_BYTES, decode_to_gateway, encode

HELLO_EVERY_S: Final = 0.5
HELLO_AGAIN_S: Final = 5.0
"""After an Unwelcome: the worker may be replaced by one that speaks our version."""
HEARTBEAT_EVERY_S: Final = LEAST_GATEWAY_TIMEOUT_S / 2
MAX_DRAIN: Final = 256
MAX_BLOCK_FRAMES: Final = 512
"""4 MB of audio in one message."""
ENOUGH_SESSIONS: Final = 64
"""A block with so many waits for no others: reading them takes as long as is good for those that came first."""
MAX_UNSENT: Final = 1_024
"""Messages that may wait for a worker that takes none; credit bounds their bytes."""

_SEND_HWM: Final = 1_000
_RECEIVE_HWM: Final = 10_000
_ZMTP_HEARTBEAT_MS: Final = 1_000
_ZMTP_TIMEOUT_MS: Final = 30_000
"""The second line, for connections whose other end has vanished before it said Welcome. Who did is judged by the fleet,
which waits for longer where steps are slow; ZMTP would cut off a worker that was halted for a moment."""
_RECONNECT_MS: Final = 100
_RECONNECT_MAX_MS: Final = 1_000
# Enums in zmq: of what its calls take, and of the sums of them, numbers are half the time of a short message.
_NOBLOCK: Final = int(zmq.NOBLOCK)
_NOBLOCK_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_REOPEN_S: Final = 1.0
"""How long until a connection that could not be opened, for lack of descriptors say, is tried again."""


class LinkOwner(Protocol):
    """Who is told what happens on a link."""

    def received(self, link: "WorkerLink", message: ToGateway) -> None:
        """The worker sent a message."""
        ...

    def link_lost(self, link: "WorkerLink", reason: str) -> None:
        """The worker cannot be reached over this connection any more; the link has already begun a new one."""
        ...


class WorkerLink:
    """One worker, as reached at ``endpoint`` (``tcp://HOST:PORT`` or ``ipc://PATH``)."""

    def __init__(
        self, *, endpoint: str, label: str, context: "zmq.Context[zmq.Socket[bytes]]", owner: LinkOwner
    ) -> None:
        self.endpoint = endpoint
        self.label = label
        """What metrics call the worker."""
        self.worker = ""
        """What the worker that said Welcome last calls itself, for logs."""
        self.is_welcome = False
        """Whether the worker has said Welcome on this connection."""
        self.n_received = 0
        self.n_sent = 0
        """Messages since the owner last set these to 0."""
        self._n_refused = 0
        self._context = context
        self._owner = owner
        self._log = structlog.get_logger().bind(endpoint=endpoint)
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[list[bytes | memoryview]] = deque()
        self._woken: dict[Session, None] = {}
        self._n_woken_before = 0
        self._is_gather_due = False
        self._is_drain_due = False
        self._next_hello = 0.0
        self._next_heartbeat = 0.0
        self._reopen_at: float | None = None
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None

    # --- life ---------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connect.

        Raises:
            zmq.ZMQError: the endpoint is none.
        """
        self._name = f"gw:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"
        link = self._context.socket(zmq.DEALER)
        try:
            self._connect(link)
        except zmq.ZMQError:
            link.close(linger=0)
            raise

    def _connect(self, link: "zmq.Socket[bytes]") -> None:
        # Options set after connect are silently ignored. IMMEDIATE: no queue for a worker that is not there.
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, _SEND_HWM),
            (zmq.RCVHWM, _RECEIVE_HWM),
            (zmq.IMMEDIATE, 1),
            (zmq.IPV6, 1),
            (zmq.HEARTBEAT_IVL, _ZMTP_HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, _ZMTP_TIMEOUT_MS),
            (zmq.RECONNECT_IVL, _RECONNECT_MS),
            (zmq.RECONNECT_IVL_MAX, _RECONNECT_MAX_MS),
            (zmq.MAXMSGSIZE, MAX_PART_BYTES),
        ):
            link.setsockopt(option, value)
        link.setsockopt(zmq.ROUTING_ID, self._name.encode())
        monitor = link.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        monitor.setsockopt(zmq.LINGER, 0)
        try:
            link.connect(self.endpoint)
        except zmq.ZMQError:
            link.disable_monitor()
            monitor.close(linger=0)
            raise
        self._socket, self._monitor = link, monitor
        self._loop.add_reader(monitor.FD, self._on_monitor)
        self._loop.add_reader(link.FD, self._drain)
        # The first look arms the edge: without it the monitor would never call.
        self._on_monitor()
        self._next_hello = 0.0

    def close(self) -> None:
        """Disconnect; what is unsent is dropped."""
        self._reopen_at = None
        if self._socket is None or self._monitor is None:
            return
        for end in (self._socket, self._monitor):
            self._loop.remove_reader(end.FD)
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close(linger=0)
        self._socket = self._monitor = None
        self._unsent.clear()
        self._woken.clear()
        self.is_welcome = False

    def reopen(self) -> None:
        """Throw this connection away and begin a new incarnation."""
        self.close()
        try:
            self.open()
        except zmq.ZMQError as error:
            self._log.warning(LINK_NOT_OPENED, reason=str(error))
            self._reopen_at = self._loop.time() + _REOPEN_S

    def welcome(self) -> bool:
        """The worker said Welcome: no more Hellos, heartbeats instead.

        Returns:
            False if it had said so before: it begins anew, and holds no session that was granted until now. Either it
            had given this gateway up, or a second Hello was on its way when the first Welcome came.
        """
        was_welcome, self.is_welcome = self.is_welcome, True
        return not was_welcome

    def refuse(self) -> None:
        """The worker will not talk to us: ask again, but not soon."""
        self._next_hello = self._loop.time() + HELLO_AGAIN_S

    def pulse(self, now: float) -> None:
        """Hear what has arrived, and say what is due; call about ten times a second."""
        if self._reopen_at is not None and now >= self._reopen_at:
            self.reopen()
        self._on_monitor()
        self._drain()
        self._send_unsent()
        if len(self._unsent) > MAX_UNSENT:
            # Here and not where one was added: whoever sends is in the middle of something.
            self._lose(f"it took none of the last {MAX_UNSENT} messages")
        if not self.is_welcome:
            # What the socket does not take, because nobody is connected yet, is tried again at once.
            if now >= self._next_hello and self._try(encode(Hello(version=PROTOCOL_VERSION, gateway=self._name))):
                self._next_hello = now + HELLO_EVERY_S
        elif now >= self._next_heartbeat and self._try(encode(Heartbeat())):
            self._next_heartbeat = now + HEARTBEAT_EVERY_S

    # --- out ----------------------------------------------------------------------------------------------

    def wake(self, session: Session) -> None:
        """Let the session send what it may, as soon as a turn of the loop has woken nobody more."""
        self._woken[session] = None
        if not self._is_gather_due:
            self._is_gather_due = True
            self._n_woken_before = 0
            self._loop.call_soon(self._gather_if_all_came)

    def forget(self, session: Session) -> None:
        """The session has left for another worker: it sends nothing here any more."""
        self._woken.pop(session, None)

    def send(self, message: ToWorker) -> None:
        """Send at once, or keep the message until the socket takes it."""
        parts = encode(message)
        if self._unsent or not self._try(parts):
            self._unsent.append(parts)

    def _gather_if_all_came(self) -> None:
        n_woken = len(self._woken)
        if self._n_woken_before < n_woken < ENOUGH_SESSIONS:
            self._n_woken_before = n_woken
            self._loop.call_soon(self._gather_if_all_came)
        else:
            self._gather()

    def _gather(self) -> None:
        self._is_gather_due = False
        if self._unsent or not self._woken:
            return
        out = Outbound(MAX_BLOCK_FRAMES)
        woken, self._woken = self._woken, {}
        for session in woken:
            session.take(out)
            if not out.room and session.can_send:
                self.wake(session)
        for control in out.controls:
            self.send(control)
        block = out.block()
        if block is not None:
            self.send(block)

    def _try(self, parts: list[bytes | memoryview]) -> bool:
        link = self._socket
        if link is None:
            return False
        last = len(parts) - 1
        try:
            for i, part in enumerate(parts):
                link.send(part, _NOBLOCK if i == last else _NOBLOCK_MORE)
        except zmq.Again:
            return False
        self.n_sent += 1
        if int(link.get(_EVENTS)) & _POLLIN:
            self._drain_soon()
        return True

    def _send_unsent(self) -> None:
        while self._unsent and self._try(self._unsent[0]):
            self._unsent.popleft()
        if self._woken and not self._unsent and not self._is_gather_due:
            self._gather()

    # --- in -----------------------------------------------------------------------------------------------

    def _drain_soon(self) -> None:
        if not self._is_drain_due:
            self._is_drain_due = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        self._is_drain_due = False
        for _ in range(MAX_DRAIN):
            # A message may have closed or reopened the link.
            if self._socket is None:
                return
            try:
                parts = self._socket.recv_multipart(_NOBLOCK)
            except zmq.Again:
                break
            self.n_received += 1
            self._take_in(parts)
        else:
            self._drain_soon()
        if self._unsent:
            self._send_unsent()

    def _take_in(self, parts: list[bytes]) -> None:
        try:
            message = decode_to_gateway(parts)
        except LinkError as error:
            self._n_refused += 1
            # A worker of another version may send them with every step: powers of two keep the log readable.
            if self._n_refused & (self._n_refused - 1) == 0:
                self._log.warning(LINK_MESSAGE_REFUSED, reason=str(error), refused=self._n_refused)
            return
        self._owner.received(self, message)

    def _on_monitor(self) -> None:
        while self._monitor is not None:
            try:
                parts = self._monitor.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            if parse_monitor_message(parts)["event"] == zmq.EVENT_DISCONNECTED and self.is_welcome:
                self._drain()
                self._lose("it closed the connection")
                return

    def _lose(self, reason: str) -> None:
        self.reopen()
        self._owner.link_lost(self, reason)
