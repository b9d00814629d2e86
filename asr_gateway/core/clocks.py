"""How long one client has been silent, idle, not spoken to, or unable to read. Time is passed in.

    heard        anything arrived, pongs included,
                 and pieces of a long message         silent for 20 s:  the peer is gone
    understood   a well-formed message arrived        idle for 120 s:   nobody needs this session
    sent         something was sent                   10 s ago:         ping
    heard        as above                             10 s ago:         ping
    output full  the client does not read             for 15 s:         too slow

Output alone does not spare a client the ping: who has sent all its audio and reads the words that come of it says
nothing of its own accord, and only a pong tells it from one that is gone.

The first two stand still while the server itself has paused reading, the second also while the client waits for an
answer that it was promised. While the server as a whole stood still, nothing a client did or left was noticed: none of
that time counts against it.
"""

from dataclasses import dataclass
from enum import Enum, auto

from shared.config import GatewayConfig


class Verdict(Enum):
    """What has to happen to a client now."""

    NOTHING = auto()
    PING = auto()
    SILENT = auto()
    IDLE = auto()
    SLOW = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockLimits:
    """Seconds after which each clock strikes."""

    ping_after_s: float
    silent_s: float
    idle_s: float
    slow_s: float

    @classmethod
    def of(cls, config: GatewayConfig) -> "ClockLimits":
        """Return the limits that a configuration asks for."""
        return cls(
            ping_after_s=config.ping_after_s,
            silent_s=config.silent_client_s,
            idle_s=config.idle_client_s,
            slow_s=config.slow_consumer_s,
        )


class ClientClocks:
    """The clocks of one client."""

    __slots__ = ("_full_since", "_limits", "_paused_at", "_pinged_at", "heard_at", "sent_at", "understood_at")

    def __init__(self, limits: ClockLimits, now: float) -> None:
        self._limits = limits
        # What ``heard`` and ``understood`` set; where every call counts, they are set without.
        self.heard_at = now
        self.understood_at = now
        self.sent_at = now
        """Set by whoever sends something."""
        self._pinged_at = now
        self._paused_at: float | None = None
        self._full_since: float | None = None

    def heard(self, now: float) -> None:
        """Anything arrived."""
        self.heard_at = now

    def heard_some(self, now: float) -> None:
        """Bytes arrived, perhaps of a message that takes long to come."""
        if self._paused_at is None:
            self.heard_at = now

    def understood(self, now: float) -> None:
        """A well-formed message arrived."""
        self.heard_at = now
        self.understood_at = now

    def pause(self, now: float) -> None:
        """The server stops reading this client."""
        if self._paused_at is None:
            self._paused_at = now

    def resume(self, now: float) -> None:
        """The server reads this client again."""
        if self._paused_at is not None:
            self.heard_at += now - self._paused_at
            self.understood_at += now - self._paused_at
            self._paused_at = None

    def excuse(self, stall_s: float, now: float) -> None:
        """The server itself stood still for ``stall_s`` until ``now``."""
        if self._paused_at is None:
            self.heard_at = min(now, self.heard_at + stall_s)
            self.understood_at = min(now, self.understood_at + stall_s)
        if self._full_since is not None:
            self._full_since = min(now, self._full_since + stall_s)

    def fill_output(self, now: float) -> None:
        """More is waiting for the client than it may leave unread."""
        if self._full_since is None:
            self._full_since = now

    def drain_output(self) -> None:
        """The client has read enough again."""
        self._full_since = None

    def check(self, now: float, *, is_busy: bool) -> Verdict:
        """Return what has to happen; ``is_busy``: the client is owed an answer."""
        limits = self._limits
        if self._full_since is not None and now - self._full_since >= limits.slow_s:
            return Verdict.SLOW
        if is_busy:
            self.understood_at = now
        if self._paused_at is None:
            if now - self.heard_at >= limits.silent_s:
                return Verdict.SILENT
            if now - self.understood_at >= limits.idle_s:
                return Verdict.IDLE
        is_unheard = self._paused_at is None and now - max(self.heard_at, self._pinged_at) >= limits.ping_after_s
        if is_unheard or now - self.sent_at >= limits.ping_after_s:
            self.sent_at = self._pinged_at = now
            return Verdict.PING
        return Verdict.NOTHING
