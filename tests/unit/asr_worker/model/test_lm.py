from dataclasses import replace
from typing import Any

import pytest
import torch

from asr_worker.model.checkpoint import fill, read_header
from asr_worker.model.lm import LanguageModel
from asr_worker.model.needs import lm_needs
from asr_worker.model.seeded_files import shapes_of
from shared.config import ExtraHeadsConfig, LmConfig, TransformerConfig

ONE_B = LmConfig(
    audio_vocab_size=2049,
    text_in_vocab_size=8001,
    text_out_vocab_size=8000,
    audio_codebooks=32,
    transformer=TransformerConfig(
        d_model=2048, num_heads=16, num_layers=16, dim_feedforward=8192, context=750, max_period=100_000.0
    ),
    extra_heads=ExtraHeadsConfig(num_heads=4, dim=6),
)
TWO_B = replace(
    ONE_B,
    text_in_vocab_size=4001,
    text_out_vocab_size=4000,
    transformer=replace(ONE_B.transformer, num_heads=32, num_layers=48, context=375),
    extra_heads=None,
)


def loaded(small: Any, dtype: torch.dtype = torch.float32) -> LanguageModel:
    config = small.module.model
    lm = LanguageModel(config, hidden=config.transformer.hidden, dtype=dtype).requires_grad_(requires_grad=False)
    fill(read_header("lm", small.files().lm), lm_needs(lm))
    return lm


def random_input(n_rows: int, n_positions: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return (
        torch.randint(0, 49, (n_rows, n_positions), generator=random),
        torch.randint(0, 33, (n_rows, n_positions, 4), generator=random),
    )


def test_whole_sequences_and_single_steps_agree(small: Any) -> None:
    lm = loaded(small)
    text, audio = random_input(3, 40)
    scores, heads = lm(text, audio)
    ring, everyone = lm.new_ring(3), torch.ones(3, dtype=torch.bool)
    for t in range(40):
        stepped, pauses = lm.step(text[:, t], audio[:, t], ring, everyone)
        torch.testing.assert_close(stepped, scores[:, t], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(pauses, torch.softmax(heads[:, t], -1)[..., 0], atol=1e-6, rtol=1e-4)


def test_bfloat16_is_close_to_float32(small: Any) -> None:
    """docs/model.md, section 12: two legitimate bf16 evaluations differ by some percent of the scores' spread."""
    text, audio = random_input(3, 20)
    exact, _ = loaded(small)(text, audio)
    rounded, _ = loaded(small, torch.bfloat16)(text, audio)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).square().mean().sqrt() < 0.05 * exact.std()


def test_a_condition_is_added_to_every_input(small: Any) -> None:
    lm = loaded(small)
    text, audio = random_input(1, 5)
    without, _ = lm(text, audio)
    lm.condition = torch.zeros(32)
    assert torch.equal(lm(text, audio)[0], without)
    lm.condition = torch.linspace(-1, 1, 32)
    shifted, _ = lm(text, audio)
    lm.text_emb += lm.condition
    lm.condition = None
    torch.testing.assert_close(lm(text, audio)[0], shifted, atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_parameter(small: Any) -> None:
    lm = loaded(small).requires_grad_()
    text, audio = random_input(2, 12)
    scores, heads = lm(text, audio)
    (scores.square().sum() + heads.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in lm.parameters())


@pytest.mark.parametrize(
    ("config", "n_parameters", "n_tensors"), [(ONE_B, 989_253_632, 135), (TWO_B, 2_617_118_720, 323)]
)
def test_the_published_sizes_need_the_tensors_of_the_published_files(
    config: LmConfig, n_parameters: int, n_tensors: int
) -> None:
    with torch.device("meta"):
        lm = LanguageModel(config, hidden=config.transformer.hidden, dtype=torch.bfloat16)
    shapes = shapes_of(lm_needs(lm))
    assert len(shapes) == n_tensors
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == n_parameters
