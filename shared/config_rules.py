"""What must hold between several keys of a configuration, or on this machine: each function returns its problems.

Limits of one key stand beside its type in ``config.py``.
"""

import ipaddress
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shared.config import ContinuousConditioner, GatewayConfig, LmConfig, LutConditioner, MimiConfig, ModuleConfig
from shared.units import FRAME_SAMPLES

CONDITIONER: Final = "delay"
"""The conditioner that moshi-server's speech-to-text asks for; others are never used."""

_RESERVED_ROUTES: Final = frozenset(
    {
        "/api/build_info",
        "/api/modules_info",
        "/metrics",
        "/healthz",
        "/readyz",
        "/api/speech/asr",
        "/v1/audio/transcriptions",
        "/v1/models",
    }
)


_RESERVED_FOLDERS: Final = ("/api/speech/asr/", "/v1/models/")


def gateway_problems(gateway: GatewayConfig) -> list[str]:
    """Return what contradicts itself in ``[gateway]``."""
    problems = []
    if gateway.min_buffered_audio_s > gateway.max_buffered_audio_s:
        problems.append(
            f"[gateway] min_buffered_audio_s = {gateway.min_buffered_audio_s:g}: must be at most"
            f" max_buffered_audio_s = {gateway.max_buffered_audio_s:g}"
        )
    if gateway.ping_after_s >= gateway.silent_client_s:
        problems.append(
            f"[gateway] ping_after_s = {gateway.ping_after_s:g}: must be below silent_client_s ="
            f" {gateway.silent_client_s:g}, or no client has time to answer a ping"
        )
    return problems


def access_problems(authorized_ids: Sequence[str], gateway: GatewayConfig) -> list[str]:
    """Return what keeps a gateway from opening its doors: nobody is let in without a key unless the file says so."""
    if authorized_ids:
        return []
    if not gateway.allow_no_keys:
        # Variables and no flags: ``asr serve`` has none for these.
        instead = (
            "[gateway] allow_no_keys = true (or ASR_ALLOW_NO_KEYS=1) lets everybody in, on a loopback address only"
        )
        return [f"no keys: set authorized_ids (or ASR_KEY); {instead}"]
    if not _is_loopback(gateway.host):
        return [f'host "{gateway.host}": without keys only a loopback address like "127.0.0.1" is allowed']
    return []


def spool_problems(gateway: GatewayConfig) -> list[str]:
    """Return what keeps a gateway on this machine from laying uploaded files where it was told to."""
    why = _why_no_spool(gateway.spool_dir) if gateway.spool_dir else ""
    return [f'spool_dir "{gateway.spool_dir}": {why}'] if why else []


def _why_no_spool(folder: str) -> str:
    try:
        is_folder = stat.S_ISDIR(Path(folder).stat().st_mode)
    except FileNotFoundError:
        is_folder = False
    except OSError as error:
        return f"cannot be used: {error.strerror}"
    if not is_folder:
        return "there is no such folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "no files can be written there"


def route_problems(modules: Sequence[ModuleConfig]) -> list[str]:
    """Return the paths that two modules share, or that the service needs for itself."""
    problems = []
    taken: dict[str, str] = {}
    for module in modules:
        route = module.path.rstrip("/")
        label = f'[modules.{module.name}] path = "{module.path}"'
        if route in _RESERVED_ROUTES or route.startswith(_RESERVED_FOLDERS):
            problems.append(f"{label}: is a route of the service itself")
        if route in taken:
            problems.append(f"{label}: [modules.{taken[route]}] has the same path")
        taken.setdefault(route, module.name)
    return problems


def module_problems(module: ModuleConfig) -> list[str]:
    """Return what contradicts itself in one module."""
    place = f"modules.{module.name}"
    problems = _mimi_problems(f"[{place}.mimi]", module.mimi)
    problems += _lm_problems(f"[{place}.model", module.model)
    codebook_size, vocabulary = module.mimi.codebook_size, module.model.audio_vocab_size
    if vocabulary != codebook_size + 1:
        problems.append(
            f"[{place}.model] audio_vocab_size = {vocabulary}: must be {codebook_size + 1},"
            f" one more than Mimi's codebook_size = {codebook_size}"
        )
    return problems + _conditioning_problems(f"[{place}]", module)


def _is_number(text: str, number: float) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _mimi_problems(place: str, mimi: MimiConfig) -> list[str]:
    problems = _heads_problems(f"{place} dimension", mimi.dimension, mimi.num_heads)
    # The learnt downsample halves the rate once more.
    samples = 2 * math.prod(mimi.ratios)
    if samples != FRAME_SAMPLES:
        problems.append(
            f"{place} ratios = {list(mimi.ratios)}: their product times 2 must be {FRAME_SAMPLES}, not {samples}"
        )
    return problems


def _lm_problems(place: str, model: LmConfig) -> list[str]:
    transformer = model.transformer
    problems = _heads_problems(f"{place}.transformer] d_model", transformer.d_model, transformer.num_heads)
    if model.text_out_vocab_size > model.text_in_vocab_size:
        problems.append(
            f"{place}] text_out_vocab_size = {model.text_out_vocab_size}: must be at most text_in_vocab_size ="
            f" {model.text_in_vocab_size}, for what the model says it is fed next"
        )
    for name, conditioner in model.conditioners.items():
        label = f"{place}.conditioners.{name}]"
        match conditioner:
            case ContinuousConditioner(dim=dim) if dim % 2:
                problems.append(f"{label} dim = {dim}: must be even, half cosines and half sines")
            case LutConditioner(n_bins=n_bins, possible_values=values) if len(values) > n_bins:
                problems.append(
                    f"{label} possible_values: {len(values)} of them, at most n_bins = {n_bins} are allowed"
                )
            case _:
                pass
    return problems


def _heads_problems(label: str, width: int, num_heads: int) -> list[str]:
    if width % num_heads or (width // num_heads) % 2:
        return [f"{label} = {width}: must be num_heads = {num_heads} times an even number (rotary positions pair them)"]
    return []


def _conditioning_problems(place: str, module: ModuleConfig) -> list[str]:
    # moshi-server's start-up rule. Without conditioners both keys are ignored: the published files set one of them.
    if not module.model.conditioners:
        return []
    delay, padding = module.conditioning_delay, module.conditioning_learnt_padding
    if delay is not None and padding:
        return [f"{place} conditioning_delay = {delay:g} and conditioning_learnt_padding = true: set one of the two"]
    if delay is None and not padding:
        return [
            f"{place} conditioning_delay or conditioning_learnt_padding = true is required: the model has conditioners"
        ]
    match module.model.conditioners.get(CONDITIONER):
        case None:
            names = ", ".join(module.model.conditioners)
            return [f'{place} model.conditioners: one must be called "{CONDITIONER}", found: {names}']
        case LutConditioner(possible_values=values) if delay is not None and not any(
            _is_number(text, delay) for text in values
        ):
            return [f"{place} conditioning_delay = {delay:g}: the model knows only {', '.join(values)}"]
        case _:
            return []
