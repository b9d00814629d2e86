"""What the fleet wants done: ``dispatch.py`` performs it, in order."""

from dataclasses import dataclass
from typing import TypeAlias

from shared.errors import AsrError
from shared.units import SessionId

WorkerId: TypeAlias = str
"""How the gateway reaches a worker: its endpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSlot:
    """Send the session's Open to the worker."""

    session: SessionId
    worker: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseSession:
    """Tell the client that there is no slot."""

    session: SessionId
    error: AsrError


@dataclass(frozen=True, slots=True, kw_only=True)
class EndSession:
    """The worker that held the session is gone."""

    session: SessionId
    error: AsrError


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveSlot:
    """The session's worker drains: ask another for a slot, while the session goes on where it is."""

    session: SessionId
    worker: WorkerId


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveSession:
    """The worker that had the session is gone, or going: it waits for another, which ``OpenSlot`` will name."""

    session: SessionId
    is_restart: bool
    """The worker had said that it would go."""
    has_reserved: bool = False
    """The worker is still there, and to be told that the session has left for a slot that another keeps for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropWorker:
    """The worker is dead: forget the connection and begin a new one."""

    worker: WorkerId


FleetAction: TypeAlias = OpenSlot | RefuseSession | EndSession | ReserveSlot | MoveSession | DropWorker
