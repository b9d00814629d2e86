"""The worker's end of the link: one ZeroMQ ROUTER that gateways connect to. It reads, writes and decides nothing.

Nothing here waits except ``wait``. Sending says whether the socket took the message: it knows a peer that has vanished
(ROUTER_MANDATORY) and one that has stopped reading (its queue is full).
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import structlog
import zmq

from asr_worker.core.arrivals import Arrival
from shared.errors import ConfigError, LinkError
from shared.log_events import LINK_MESSAGE_REFUSED
from shared.lone_frames import is_lone_frame
from shared.messages import ToGateway
from shared.units import LEAST_GATEWAY_TIMEOUT_S
from shared.wire import MAX_PART_BYTES, decode_to_worker, encode

QUEUED_MESSAGES: Final = 2_000
"""For each gateway and direction. At 12.5 blocks a second a gateway that does not read is silent for long before."""

HEARTBEAT_MS: Final = 1_000
LEAST_HEARTBEAT_TIMEOUT_MS: Final = 3_000
HEARTBEAT_TIMEOUT_MS_PER_S: Final = 1_500
"""ZMTP's own heartbeat is the second line, for connections whose other end is gone: a half more than a gateway may be
silent for. The loops' heartbeats decide; ZMTP knows nothing of loops, but would cut off a process that is halted."""
_MAX_INT: Final = (1 << 31) - 1

LAST_WORDS_MS: Final = 500


class Delivery(Enum):
    """What became of a message that was to be sent."""

    TAKEN = auto()
    QUEUE_FULL = auto()
    UNREACHABLE = auto()


@dataclass(frozen=True, slots=True)
class Refused:
    """What ``routing_id`` sent is no message of the protocol."""

    routing_id: bytes
    reason: str


def heartbeat_timeout_ms(gateway_timeout_s: float) -> int:
    """Return for how long ZMTP bears that nothing comes, where a gateway may be silent for ``gateway_timeout_s``."""
    return int(min(max(LEAST_HEARTBEAT_TIMEOUT_MS, HEARTBEAT_TIMEOUT_MS_PER_S * gateway_timeout_s), _MAX_INT))


class Link:
    """A ROUTER socket. Bind it once; close it, or use it as a context.

    ``gateway_timeout_s`` is how long a gateway may be silent until it is given up, which is not decided here.
    """

    def __init__(self, *, gateway_timeout_s: float) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._log = structlog.get_logger()
        self._n_refused = 0
        # Options set after bind are ignored without a word.
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.ROUTER_MANDATORY, 1),
            (zmq.ROUTER_HANDOVER, 1),
            (zmq.SNDHWM, QUEUED_MESSAGES),
            (zmq.RCVHWM, QUEUED_MESSAGES),
            (zmq.MAXMSGSIZE, MAX_PART_BYTES),
            (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
            (zmq.HEARTBEAT_TIMEOUT, heartbeat_timeout_ms(gateway_timeout_s)),
        ):
            self._socket.setsockopt(option, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def bind(self, endpoint: str) -> str:
        """Listen on ``endpoint`` (``tcp://HOST:PORT``, port 0 for any; ``ipc://PATH``) and return what it became.

        Raises:
            ConfigError: it cannot be listened on.
        """
        if "[" in endpoint:
            self._socket.setsockopt(zmq.IPV6, 1)
        if (path := _path_of(endpoint)) is not None:
            _check_path_free(path, endpoint)
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            raise _no_listening(endpoint, error.strerror) from error
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def drain(self, limit: int) -> Iterator[Arrival | Refused]:
        """Yield at most ``limit`` messages that have arrived, with their sender."""
        for _ in range(limit):
            try:
                routing_id, *parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                message = parts if is_lone_frame(parts) else decode_to_worker(parts)
            except LinkError as error:
                yield self._refuse(routing_id, str(error))
            else:
                yield routing_id, message

    def send(self, routing_id: bytes, message: ToGateway) -> Delivery:
        """Send ``message`` without waiting; return what became of it."""
        try:
            self._socket.send_multipart([routing_id, *encode(message)], zmq.DONTWAIT)
        except zmq.Again:
            return Delivery.QUEUE_FULL
        except zmq.ZMQError as error:
            if error.errno == zmq.EHOSTUNREACH:
                return Delivery.UNREACHABLE
            raise
        return Delivery.TAKEN

    def wait(self, timeout_s: float) -> None:
        """Return when something has arrived, at the latest after ``timeout_s``."""
        self._socket.poll(max(0, int(1e3 * timeout_s)))

    def close(self) -> None:
        """Stop listening; wait for a moment until gateways have been sent the last words to them."""
        self._socket.close(linger=LAST_WORDS_MS)
        self._context.term()

    def _refuse(self, routing_id: bytes, reason: str) -> Refused:
        self._n_refused += 1
        # A peer that speaks nonsense may speak it fast: powers of two keep the log readable.
        if self._n_refused & (self._n_refused - 1) == 0:
            sender = routing_id.decode("ascii", "backslashreplace")
            self._log.warning(LINK_MESSAGE_REFUSED, gateway=sender, reason=reason, refused=self._n_refused)
        return Refused(routing_id, reason)


def check_free(endpoint: str) -> None:
    """See to it that ``endpoint`` can be listened on, by doing so for a moment: for before what takes long.

    A gateway that connects meanwhile was never welcomed and loses nothing. Of a Unix socket only the path is looked at.

    Raises:
        ConfigError: it cannot.
    """
    if (path := _path_of(endpoint)) is not None:
        _check_path_free(path, endpoint)
    elif endpoint.startswith("tcp://"):
        with Link(gateway_timeout_s=LEAST_GATEWAY_TIMEOUT_S) as link:
            link.bind(endpoint)


def _path_of(endpoint: str) -> Path | None:
    # Names that begin with "@" lie in no folder; for "*" ZeroMQ makes a path of its own.
    scheme, _, path = endpoint.partition("://")
    return Path(path) if scheme == "ipc" and path != "*" and not path.startswith("@") else None


def _check_path_free(path: Path, endpoint: str) -> None:
    """See to it that nothing is lost with what lies at ``path``: ZeroMQ deletes it before it binds, whatever it is.

    A socket that nobody listens on is left over from a worker that was killed, and may go.

    Raises:
        ConfigError: it is something else, or a socket that somebody has.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:  # most often there is nothing; of what else is wrong, binding tells
        return
    if not is_socket:
        raise _no_listening(endpoint, f"{path} is no socket")
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.setblocking(False)
        try:
            visitor.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:  # somebody listens, and has many who wait
            pass
        except OSError as error:
            raise _no_listening(endpoint, error.strerror) from error
    raise _no_listening(endpoint, os.strerror(errno.EADDRINUSE))


def _no_listening(endpoint: str, reason: str | None) -> ConfigError:
    return ConfigError(f"cannot listen on {endpoint}: {reason}; allowed are tcp://HOST:PORT and ipc://PATH")
