import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_worker.core.model import StepPlan
from asr_worker.model.conditioner import condition_need, continuous_features
from asr_worker.model.loading import load_model
from asr_worker.model.seeded import seeded_audio, seeded_tensor
from shared.config import ContinuousConditioner, LutConditioner, ModuleConfig
from shared.errors import CheckpointError, ConfigError

CONTINUOUS = ContinuousConditioner(dim=8, scale_factor=10.0, max_period=1000.0)
LUT = LutConditioner(n_bins=3, dim=8, possible_values=("very_good", "0.5", "2.5"))
PREFIX = "condition_provider.conditioners.delay"


def with_conditioner(small: Any, conditioner: ContinuousConditioner | LutConditioner, **changes: Any) -> ModuleConfig:
    return replace(small.module, model=replace(small.module.model, conditioners={"delay": conditioner}), **changes)


def condition(module: ModuleConfig, *tensors: torch.Tensor) -> tuple[list[tuple[str, tuple[int, ...]]], torch.Tensor]:
    """The tensors that are asked for, and the condition that comes of those given."""
    got: list[torch.Tensor] = []
    need = condition_need(module, got.append)
    assert need is not None
    need.put(*tensors)
    return [(wanted.name, wanted.shape) for wanted in need.wanted], got[0]


def test_a_model_without_conditioners_ignores_both_settings(small: Any) -> None:
    module = replace(small.module, conditioning_delay=2.5, conditioning_learnt_padding=True)
    assert condition_need(module, print) is None


def test_a_delay_becomes_cosines_and_sines_of_its_negative() -> None:
    expected = [2.5 * 10 * 1000 ** (-i / 3) for i in range(4)]
    features = continuous_features(CONTINUOUS, -2.5)
    wanted = [math.cos(-angle) for angle in expected] + [math.sin(-angle) for angle in expected]
    torch.testing.assert_close(features, torch.tensor(wanted), atol=1e-5, rtol=1e-5)


def test_a_continuous_condition_is_projected(small: Any) -> None:
    weight = torch.randn(32, 8)
    module = with_conditioner(small, CONTINUOUS, conditioning_delay=2.5)
    asked, found = condition(module, weight)
    assert asked == [(f"{PREFIX}.output_proj.weight", (32, 8))]
    torch.testing.assert_close(found, weight @ continuous_features(CONTINUOUS, -2.5))


def test_a_table_gives_the_row_of_the_value(small: Any) -> None:
    weight, table = torch.randn(32, 8), torch.randn(4, 8)
    asked, found = condition(with_conditioner(small, LUT, conditioning_delay=2.5), weight, table)
    assert asked == [(f"{PREFIX}.output_proj.weight", (32, 8)), (f"{PREFIX}.embed.weight", (4, 8))]
    torch.testing.assert_close(found, weight @ table[2])


def test_a_value_that_the_table_lacks_is_refused_with_those_it_has(small: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        condition_need(with_conditioner(small, LUT, conditioning_delay=1.0), print)
    assert str(caught.value) == "modules.small.conditioning_delay is 1; the model knows very_good, 0.5, 2.5"


def test_a_learnt_padding_is_taken_as_it_is(small: Any) -> None:
    padding = torch.randn(1, 1, 32)
    module = with_conditioner(small, CONTINUOUS, conditioning_learnt_padding=True)
    asked, found = condition(module, padding)
    assert asked == [(f"{PREFIX}.learnt_padding", (1, 1, 32))]
    assert torch.equal(found, padding.flatten())


def test_a_condition_is_loaded_checked_and_heard(small: Any, tmp_path: Path) -> None:
    plain = small.files()
    module = with_conditioner(small, CONTINUOUS, conditioning_delay=2.5)
    with pytest.raises(CheckpointError, match=f"'{PREFIX}.output_proj.weight': missing, expected shape"):
        load_model(module, plain, device="cpu", threads=1, seed=1)
    name = f"{PREFIX}.output_proj.weight"
    weights = {**load_file(plain.lm), name: torch.from_numpy(seeded_tensor(name, (32, 8), 1))}
    save_file(weights, tmp_path / "lm")
    files = replace(plain, lm=tmp_path / "lm")
    everyone = np.ones(4, bool)

    def tokens(module: ModuleConfig) -> list[int]:
        model = load_model(module, files, device="cpu", threads=1, seed=1)
        said = []
        for frame in seeded_audio("speech", 20, 1):
            model.launch(StepPlan(pcm=np.repeat(frame[None], 4, axis=0), active=everyone, reset=~everyone))
            said.append(int(model.collect().text[0]))
        return said

    assert tokens(module) != tokens(small.module)
    assert load_model(module, files, device="cpu", threads=1, seed=1).facts.delay_frames == 32
