"""Conditioners: one constant vector that is added to every input of the language model.

Only a model whose configuration has ``[modules.NAME.model.conditioners.delay]`` has one; no published STT model
does. moshi-server uses the conditioner called ``delay`` and no other, and takes the vector from one of two settings:

    conditioning_delay = 2.5                 how far words trail the audio, in seconds
    conditioning_learnt_padding = true       the vector that stands for "not told"

Source: docs/model.md, section 8.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from asr_worker.model.checkpoint import Need, Wanted
from shared.config import ContinuousConditioner, LutConditioner, ModuleConfig
from shared.config_rules import CONDITIONER
from shared.errors import ConfigError


def condition_need(module: ModuleConfig, put: Callable[[Tensor], None]) -> Need | None:
    """Say which tensors the module's condition is made of; None for a model without conditioners.

    Args:
        module: settings and sizes, which obey ``shared.config_rules``: exactly one of the two settings.
        put: takes the condition, ``[d_model]``, when the tensors have been read.

    Raises:
        ConfigError: a table of delays does not have the configured one.
    """
    if not module.model.conditioners:
        return None
    conditioner = module.model.conditioners[CONDITIONER]
    dim = module.model.transformer.d_model
    prefix = f"condition_provider.conditioners.{CONDITIONER}"
    if module.conditioning_learnt_padding:
        return Need(
            wanted=(Wanted(name=f"{prefix}.learnt_padding", shape=(1, 1, dim)),),
            put=lambda padding: put(padding.flatten()),
        )
    assert module.conditioning_delay is not None
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
    exponents = torch.arange(half, dtype=torch.float32) / max(half - 1, 1)
    angles = value * conditioner.scale_factor * conditioner.max_period**-exponents
    return torch.cat((angles.cos(), angles.sin()))


def _project(weight: Tensor, features: Tensor) -> Tensor:
    return functional.linear(features.to(weight.dtype), weight)


def _lut_row(module_name: str, conditioner: LutConditioner, delay_s: float) -> int:
    """Return the row of the value that equals the delay as a number.

    moshi-server looks texts up and refuses a number here, and so do our configuration files; models that are built
    by hand may use it.
    """
    for row, text in enumerate(conditioner.possible_values):
        try:
            if float(text) == delay_s:
                return row
        except ValueError:
            continue
    allowed = ", ".join(conditioner.possible_values)
    msg = f"modules.{module_name}.conditioning_delay is {delay_s:g}; the model knows {allowed}"
    raise ConfigError(msg)
