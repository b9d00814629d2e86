"""Weights on CPU in fewer bits: how near to float32, what a row knows of others, which one is chosen."""

import platform
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.model import cpu_weights
from asr_worker.model.cpu_weights import CPU_WEIGHTS, pack_lm, trouble_with
from asr_worker.model.kv_cache import KV_FORMATS
from asr_worker.model.lm import LanguageModel
from asr_worker.model.products import can_pack
from shared.config import LmConfig
from shared.errors import ConfigError

pytestmark = pytest.mark.skipif(not can_pack(torch.zeros(1, 1)), reason="this torch cannot pack weights")

NARROW = [
    pytest.param(name, marks=pytest.mark.skipif(trouble_with(name) is not None, reason=str(trouble_with(name))))
    for name in ("bf16", "int8")
]
ERRORS = {"f32": 1e-5, "bf16": 6e-3, "int8": 2e-2}
"""Of the standard deviation of what comes out (rms), for normal numbers."""

SENTENCE = [np.sin(np.arange(1920, dtype=np.float32) * (k + 1) / 50).astype(np.float32) for k in range(6)]


def seeded(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("n_rows", [1, 2, 17])
@pytest.mark.parametrize("name", ["f32", *NARROW])
@torch.inference_mode()
def test_a_product_differs_from_float32_by_no_more_than_its_format_explains(name: str, n_rows: int) -> None:
    # Rows and outputs of any size: each has its own scale.
    weight = seeded(96, 512) * 10.0 ** torch.arange(-3, 3).repeat(16)[:, None]
    x = seeded(n_rows, 512) * 10.0 ** (torch.arange(n_rows) % 5 - 2)[:, None]
    expected = x.double() @ weight.double().t()
    scale = x.norm(dim=-1, keepdim=True) * weight.norm(dim=-1)[None]
    multiply = CPU_WEIGHTS[name](2)(weight)
    found = multiply(x)
    assert found.dtype == torch.float32
    error = ((found - expected) / scale * 512**0.5).square().mean().sqrt()
    assert error < ERRORS[name]
    if name != "f32":
        assert error > 0.1 * ERRORS[name], "it is another format than it says"
    there = seeded(n_rows, 96)
    torch.testing.assert_close(multiply.add_to(there.clone(), x), there + found, rtol=1e-4, atol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("name", NARROW)
def test_rows_and_outputs_of_zeros_are_zeros(name: str) -> None:
    weight, x = seeded(64, 128), seeded(3, 128)
    weight[5], x[1] = 0.0, 0.0
    found = CPU_WEIGHTS[name](2)(weight)(x)
    assert found.isfinite().all()
    assert found[1].count_nonzero() == found[:, 5].count_nonzero() == 0
    assert found[0].count_nonzero() == 63


@torch.inference_mode()
@pytest.mark.parametrize("name", NARROW)
def test_a_loud_row_changes_no_other(name: str) -> None:
    multiply = CPU_WEIGHTS[name](2)(seeded(64, 512))
    x = seeded(4, 512)
    before = multiply(x)
    x[2] *= 2.0**20
    after = multiply(x)
    assert torch.equal(after[[0, 1, 3]], before[[0, 1, 3]])
    torch.testing.assert_close(after[2], before[2] * 2.0**20)


def seeded_lm(config: LmConfig) -> LanguageModel:
    """Return a model of weights that keep a layer's scale."""
    lm = LanguageModel(config, hidden=config.transformer.hidden, dtype=torch.float32)
    generator = torch.Generator().manual_seed(3)
    for name, parameter in lm.named_parameters():
        if name.endswith("alpha"):
            parameter.data.fill_(1.0)
        else:
            parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
    return lm.requires_grad_(requires_grad=False)


@pytest.mark.parametrize("kv_cache", [None, "bf16"])
@pytest.mark.parametrize("name", ["f32", *NARROW])
@torch.inference_mode()
def test_a_model_s_scores_differ_by_no_more_than_the_formats_explain(
    small: Any, name: str, kv_cache: str | None
) -> None:
    config = small.module.model
    exact, other = seeded_lm(config), seeded_lm(config)
    assert pack_lm(other, name, n_rows=2) == (None if name == "f32" else name)
    rings = [exact.new_ring(2), other.new_ring(2, None if kv_cache is None else KV_FORMATS[kv_cache])]
    everyone = torch.ones(2, dtype=torch.bool)
    errors = []
    for k in range(2 * config.transformer.context):
        text, codes = torch.tensor([k % 48, 47 - k % 48]), torch.full((2, config.audio_codebooks), k % 32)
        expected, found = (
            lm.step(text, codes, ring, everyone)[0] for lm, ring in zip((exact, other), rings, strict=True)
        )
        errors.append(float((found - expected).square().mean().sqrt() / expected.std()))
    limit = 4 * max(ERRORS[name], ERRORS["bf16"] if kv_cache else 0.0)
    assert max(errors) < limit
    if name != "f32" or kv_cache:
        assert max(errors) > 0.02 * limit


@pytest.mark.parametrize("is_prepared", [False, True])
@pytest.mark.parametrize("name", NARROW)
def test_a_loaded_model_steps_with_them(batch_of: Callable[..., Any], *, name: str, is_prepared: bool) -> None:
    exact, narrow = batch_of(2), batch_of(2, cpu_weights=name, is_prepared=is_prepared)
    assert narrow.model.started["cpu_weights"] == name
    for frame in SENTENCE:
        for batch in (exact, narrow):
            batch.step({0: frame, 1: -frame})
    # Codes are Mimi's, which stays float32; what the model thinks of pauses moves a little.
    assert [codes for row in narrow.said for _, codes in row] == [codes for row in exact.said for _, codes in row]
    assert not np.array_equal(narrow.pauses, exact.pauses)


def test_by_default_nothing_is_rounded_or_said(small: Any) -> None:
    assert "cpu_weights" not in small.load().started


@pytest.mark.parametrize("name", ["bf16", "int8", "auto"])
def test_a_model_in_another_dtype_is_refused(small: Any, name: str) -> None:
    module = replace(small.module, dtype_override="bf16")
    with pytest.raises(ConfigError, match=r"cpu_weights is '\w+', .* float32 .*; dtype_override makes it bfloat16"):
        small.load(module, cpu_weights=name)


def test_a_cpu_that_adds_up_wrongly_is_refused_by_name(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one without VNNI does."""
    monkeypatch.setattr(cpu_weights, "_is_exact", lambda: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(ConfigError, match=r"cpu_weights is 'int8': this CPU has no VNNI.*; allowed here are f32"):
        small.load(cpu_weights="int8")
    assert "int8" not in str(small.load(cpu_weights="auto").started["cpu_weights"])


def test_sums_that_are_cut_off_at_16_bits_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_weights, "_multiply_whole", lambda *_: torch.full((4, 64), 32767.0))
    monkeypatch.setattr(torch.ops.onednn, "qlinear_prepack", lambda weight, _: weight)
    assert not cpu_weights._is_exact()


def test_another_kind_of_cpu_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert [trouble_with(name) for name in CPU_WEIGHTS] == [None, *["it was tried on x86 only, this is riscv64"] * 2]


def test_a_torch_without_the_operator_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> bool:
        message = "'_OpNamespace' 'onednn' object has no attribute 'qlinear_prepack'"
        raise AttributeError(message)

    monkeypatch.setattr(cpu_weights, "_is_exact", missing)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert f"torch {torch.__version__} cannot" in str(trouble_with("int8"))


@pytest.mark.parametrize(
    ("times_ms", "expected"),
    [
        ({"f32": 1.0, "bf16": 0.9, "int8": 0.85}, "f32"),
        ({"f32": 1.0, "bf16": 0.5, "int8": 0.45}, "bf16"),
        ({"f32": 1.0, "bf16": 0.5, "int8": 0.3}, "int8"),
        ({"f32": 1.0, "bf16": 2.0, "int8": 0.7}, "int8"),
        ({"f32": 1.0, "bf16": 0.85, "int8": 0.7}, "bf16"),
    ],
)
def test_auto_gives_up_exactness_only_for_a_fifth_of_the_time(
    small: Any, monkeypatch: pytest.MonkeyPatch, times_ms: dict[str, float], expected: str
) -> None:
    module = small.module
    lm = LanguageModel(module.model, hidden=module.model.transformer.hidden, dtype=torch.float32)
    packed: list[object] = []
    # Half of it for one row, half for all.
    times = iter([taken_ms / 2 for taken_ms in times_ms.values() for _ in range(2)])
    monkeypatch.setattr(cpu_weights, "trouble_with", lambda _: None)
    monkeypatch.setattr(cpu_weights, "CPU_WEIGHTS", {name: lambda _, name=name: lambda _: name for name in times_ms})
    monkeypatch.setattr(cpu_weights, "_time_ms", lambda *_: next(times))
    monkeypatch.setattr(lm, "pack", lambda make: packed.append(make(None)))
    said = pack_lm(lm, "auto", n_rows=3)
    assert packed == [expected]
    assert str(said).startswith(f"{expected} (ms a layer, of 1 and 3 rows: f32 1, bf16 ")


def test_auto_is_decided_by_trial_on_this_machine(small: Any) -> None:
    said = str(small.load(cpu_weights="auto").started["cpu_weights"])
    assert said.partition(" ")[0] in CPU_WEIGHTS
    assert "f32 " in said.partition("(")[2]
