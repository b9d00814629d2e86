"""Conditioners: one constant vector that is added to every input of the language model.

Only a model whose configuration has ``[modules.NAME.model.conditioners.delay]`` has one; no published STT model
does. moshi-server uses the conditioner called ``delay`` and no other, and takes the vector from one of two settings:

    conditioning_delay = 2.5                 how far words trail the audio, in seconds
    conditioning_learnt_padding = true       the vector that stands for "not told"

Source: model.md section 8.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from asr_worker.model.checkpoint import Need, Wanted
from shared.config import ContinuousConditioner, LutConditioner, ModuleConfig
from shared.errors import ConfigError

CONDITIONER: Final = "delay"


def condition_need(module: ModuleConfig, put: Callable[[Tensor], None]) -> Need | None:
    """Say which tensors the module's condition is made of; None for a model without conditioners.

    Args:
        module: settings and sizes.
        put: takes the condition, ``[d_model]``, when the tensors have been read.

    Raises:
        ConfigError: the settings name no condition, or two, or one that the model does not have.
    """
    if not module.model.conditioners:
        return None
    conditioner = module.model.conditioners.get(CONDITIONER)
    if conditioner is None:
        names = ", ".join(sorted(module.model.conditioners))
        msg = f"modules.{module.name}.model.conditioners has {names}, but only 'delay' is supported"
        raise ConfigError(msg)
    if (module.conditioning_delay is None) == (not module.conditioning_learnt_padding):
        found = "neither" if module.conditioning_delay is None else "both"
        msg = (
            f"modules.{module.name}: the model has a conditioner, so exactly one of conditioning_delay and "
            f"conditioning_learnt_padding = true must be set; {found} is"
        )
        raise ConfigError(msg)
    dim = module.model.transformer.d_model
    prefix = f"condition_provider.conditioners.{CONDITIONER}"
    if module.conditioning_delay is None:
        return Need(
            wanted=(Wanted(name=f"{prefix}.learnt_padding", shape=(1, 1, dim)),),
            put=lambda padding: put(padding.flatten()),
        )
    projection = Wanted(name=f"{prefix}.output_proj.weight", shape=(dim, conditioner.dim))
    if isinstance(conditioner, ContinuousConditioner):
        features = continuous_features(conditioner, -module.conditioning_delay)
        return Need(wanted=(projection,), put=lambda weight: put(_project(weight, features)))
    row = _lut_row(module.name, conditioner, module.conditioning_delay)
    table = Wanted(name=f"{prefix}.embed.weight", shape=(conditioner.n_bins + 1, conditioner.dim))
    return Need(wanted=(projection, table), put=lambda weight, rows: put(_project(weight, rows[row])))


def continuous_features(conditioner: ContinuousConditioner, value: float) -> Tensor:
    """Return the sines and cosines ``[dim]`` that stand for ``value``, in float32."""
    half = conditioner.dim // 2
    exponents = torch.arange(half, dtype=torch.float32) / (half - 1)
    angles = value * conditioner.scale_factor * conditioner.max_period**-exponents
    return torch.cat((angles.cos(), angles.sin()))


def _project(weight: Tensor, features: Tensor) -> Tensor:
    return functional.linear(features.to(weight.dtype), weight)


def _lut_row(module_name: str, conditioner: LutConditioner, delay_s: float) -> int:
    """Return the row of the value that equals the delay as a number."""
    for row, text in enumerate(conditioner.possible_values):
        try:
            if float(text) == delay_s:
                return row
        except ValueError:
            continue
    allowed = ", ".join(conditioner.possible_values)
    msg = f"modules.{module_name}.conditioning_delay is {delay_s:g}; the model knows {allowed}"
    raise ConfigError(msg)
