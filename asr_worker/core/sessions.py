"""What gateways say about their sessions, and what they are told: opened, fed, marked, closed, evicted.

A session that breaks the rules of the link loses its slot, and no other does. Which gateways are known, and still
there, is the pool's business.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

from asr_worker.core.admission import Admission
from asr_worker.core.gateways import Gateway, OnceInAWhile
from asr_worker.core.intake import take_audio
from asr_worker.core.leases import Leases
from asr_worker.core.model import ModelFacts
from asr_worker.core.replay import is_fit
from shared.errors import LinkError
from shared.messages import (
    EVICT_UNKNOWN_SESSION,
    REJECT_DRAINING,
    REJECT_FULL,
    REJECT_RESUME,
    AudioBlock,
    Close,
    Closed,
    Evict,
    Flush,
    Heartbeat,
    Hello,
    Marker,
    Open,
    Ready,
    Reject,
    Reset,
    SessionKind,
    ToGateway,
    ToWorker,
)
from shared.units import Epoch, SessionId, SlotIndex

_MAX_REASON_CHARS: Final = 1_000

Outgoing: TypeAlias = tuple[bytes, ToGateway]
"""A gateway's routing id, and what it is told."""


class Sessions:
    """The sessions of all gateways, in ``leases``; no more than ``admission`` allows."""

    def __init__(self, *, facts: ModelFacts, leases: Leases, admission: Admission) -> None:
        self.is_draining = False
        """Whether no session is admitted any more."""
        self._facts = facts
        self._leases = leases
        self._admission = admission
        self._unknown_told = OnceInAWhile(1.0)

    @property
    def n_used(self) -> int:
        """Slots that sessions hold."""
        return self._leases.allocator.n_used

    @property
    def n_free(self) -> int:
        """Sessions that can still be opened: none while draining."""
        return 0 if self.is_draining else self._admission.sessions - self.n_used

    def handle(self, gateway: Gateway, message: ToWorker, now: float) -> list[Outgoing]:
        """Take one message of ``gateway``, which is known, and return the replies, in order."""
        match message:
            case Open():
                return self._open(gateway, message)
            case AudioBlock():
                return self._audio(gateway, message, now)
            case Marker() | Flush() | Reset():
                return self._item(gateway, message, now)
            case Close():
                return self._close(gateway, message)
            case Heartbeat() | Hello():
                return []

    def evict_all_of(self, gateway: Gateway, code: str, reason: str) -> list[Outgoing]:
        """End every session of ``gateway``, giving ``code`` and ``reason``."""
        return [out for slot in tuple(gateway.slots.values()) for out in self._evict(gateway, slot, code, reason)]

    def _evict(self, gateway: Gateway, slot: SlotIndex, code: str, reason: str) -> list[Outgoing]:
        session, epoch = self._leases.session_of(slot), self._leases.epoch_of(slot)
        self._leases.end(gateway, slot)
        # A device's own words can be longer than the link allows.
        told = Evict(session=session, epoch=epoch, code=code, reason=reason[:_MAX_REASON_CHARS])
        return [(gateway.routing_id, told)]

    def _open(self, gateway: Gateway, message: Open) -> list[Outgoing]:
        held = gateway.slots.get(message.session)
        if held is not None:
            epoch = self._leases.epoch_of(held)
            if message.epoch < epoch:
                return []
            if message.epoch == epoch:
                return self._evict(gateway, held, LinkError.code, f"epoch {epoch} of the session is open already")
            self._leases.end(gateway, held)
        reason = self._refusal(message)
        slot = None if reason else self._leases.open(gateway, message)
        if slot is None:
            return [self.reject(gateway, message, reason or REJECT_FULL)]
        return [(gateway.routing_id, Ready(session=message.session, epoch=message.epoch, slot=slot))]

    def _refusal(self, message: Open) -> str:
        """Return why ``message`` cannot be granted whatever slots are free; empty if nothing speaks against it."""
        if self.is_draining:
            return REJECT_DRAINING
        if message.resume is not None and not is_fit(message.resume, self._facts):
            return REJECT_RESUME
        is_one_too_many = message.kind is SessionKind.FILE and self._leases.n_files >= self._admission.files
        return REJECT_FULL if is_one_too_many or not self.n_free else ""

    def reject(self, gateway: Gateway, message: Open, reason: str) -> Outgoing:
        """Return the refusal of ``message``."""
        reject = Reject(session=message.session, epoch=message.epoch, reason=reason, free=self.n_free)
        return gateway.routing_id, reject

    def _close(self, gateway: Gateway, message: Close) -> list[Outgoing]:
        slot = gateway.slots.get(message.session)
        if slot is not None and self._leases.epoch_of(slot) <= message.epoch:
            self._leases.end(gateway, slot)
        return [(gateway.routing_id, Closed(session=message.session, epoch=message.epoch))]

    def _item(self, gateway: Gateway, message: Marker | Flush | Reset, now: float) -> list[Outgoing]:
        slot = gateway.slots.get(message.session)
        if slot is None or message.epoch > self._leases.epoch_of(slot):
            return self._unknown(gateway, [(message.session, message.epoch)], now)
        if message.epoch < self._leases.epoch_of(slot):
            return []
        if isinstance(message, Reset) and message.restart:
            self._leases.restart(slot, message.frame)
            return [(gateway.routing_id, Ready(session=message.session, epoch=message.epoch, slot=slot))]
        try:
            self._leases.push(slot, message)
        except LinkError as error:
            return self._evict(gateway, slot, error.code, str(error))
        return []

    def _audio(self, gateway: Gateway, block: AudioBlock, now: float) -> list[Outgoing]:
        taken = take_audio(gateway=gateway, block=block, rows=self._leases.rows, rings=self._leases.rings, now=now)
        out = self._unknown(gateway, taken.unknown, now)
        for fault in taken.faults:
            out += self._evict(gateway, fault.slot, fault.code, fault.reason)
        return out

    def _unknown(self, gateway: Gateway, routes: Iterable[tuple[SessionId, Epoch]], now: float) -> list[Outgoing]:
        reason = "the worker holds no such session"
        return [
            (gateway.routing_id, Evict(session=session, epoch=epoch, code=EVICT_UNKNOWN_SESSION, reason=reason))
            for session, epoch in routes
            if self._unknown_told.allows((gateway.number, session, epoch), now)
        ]
