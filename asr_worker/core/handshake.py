"""How a worker answers a gateway's Hello: with its facts, or by saying what does not fit."""

from dataclasses import dataclass
from typing import Final

from asr_worker.core.model import ModelFacts
from shared.messages import PROTOCOL_VERSION, Unwelcome, Welcome

SPOKEN_VERSIONS: Final = tuple(version for version in (PROTOCOL_VERSION, PROTOCOL_VERSION - 1) if version > 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Names of the worker: its incarnation ``wk:<host>:<pid>:<uuid>`` and its module's NAME."""

    worker: str
    module: str


def welcome(facts: ModelFacts, identity: Identity, *, n_sessions: int, window_frames: int) -> Welcome:
    """Return the answer to a gateway that fits, from a worker that admits ``n_sessions``."""
    return Welcome(
        version=PROTOCOL_VERSION,
        worker=identity.worker,
        module=identity.module,
        fingerprint=facts.fingerprint,
        n_sessions=n_sessions,
        n_heads=facts.n_heads,
        n_codebooks=facts.n_codebooks,
        delay_frames=facts.delay_frames,
        context_frames=facts.context_frames,
        codec_context_frames=facts.codec_context_frames,
        window_frames=window_frames,
        device=facts.device,
        dtype=facts.dtype,
    )


def unwelcome(reason: str) -> Unwelcome:
    """Return the answer to a gateway that does not fit."""
    return Unwelcome(versions=SPOKEN_VERSIONS, reason=reason)


def wrong_version(version: int) -> Unwelcome | None:
    """Return the answer to a gateway that speaks ``version`` of the link; None if this worker does too."""
    if version in SPOKEN_VERSIONS:
        return None
    return unwelcome(f"this worker speaks version {PROTOCOL_VERSION} of the link, the gateway {version}")
