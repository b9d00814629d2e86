"""Files as large as the published ones, of random numbers, load and step."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr_worker.core.model import StepPlan
from asr_worker.model.checkpoint import problems_of, read_header
from asr_worker.model.lm import LanguageModel
from asr_worker.model.loading import load_model
from asr_worker.model.needs import hidden_width, lm_needs
from asr_worker.model.seeded_files import published_shapes
from shared.config import ExtraHeadsConfig, LmConfig, ModuleConfig, TransformerConfig

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
PUBLISHED_BYTES = {"1b": 1_978_522_200, "2.6b": 5_234_275_128}


def write_random_bf16(path: Path, shapes: dict[str, tuple[int, ...]], *, sparse: bool) -> None:
    """Write a file of bf16 noise (or holes) quickly: one block of numbers again and again."""
    entries, offset = {}, 0
    for name, shape in sorted(shapes.items()):
        n_bytes = 2 * torch.Size(shape).numel()
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + n_bytes]}
        offset += n_bytes
    # As safetensors writes it: no spaces, padded to a multiple of 8.
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    noise = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.02).bfloat16()
    block = noise.view(torch.int16).numpy().tobytes()
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        if not sparse:
            for start in range(0, offset, len(block)):
                file.write(block[: offset - start])
        file.truncate(8 + len(raw) + offset)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """A file too large to be left in the folders that pytest keeps."""
    path = tmp_path / "lm.safetensors"
    yield path
    path.unlink()


def module_of(small: Any, model: LmConfig) -> ModuleConfig:
    mimi = replace(small.module.mimi, codebook_size=2048)
    return replace(small.module, model=model, mimi=mimi, batch_size=1, dtype_override="bf16")


@pytest.mark.parametrize(("name", "config"), [("1b", ONE_B), ("2.6b", TWO_B)])
def test_a_file_of_a_published_size_has_its_bytes_and_no_problems(
    small: Any, path: Path, name: str, config: LmConfig
) -> None:
    """Only the header is real: the numbers are a hole in the file."""
    shapes, _ = published_shapes(module_of(small, config))
    write_random_bf16(path, shapes, sparse=True)
    header = read_header("lm_model_file", path)
    with torch.device("meta"):
        lm = LanguageModel(config, hidden=hidden_width(config.transformer, header), dtype=torch.bfloat16)
    assert problems_of(header, lm_needs(lm)) == []
    assert header.data_bytes == 2 * sum(torch.Size(shape).numel() for shape in shapes.values())
    assert header.file_bytes == PUBLISHED_BYTES[name]


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("config", [ONE_B, TWO_B], ids=["1b", "2.6b"])
def test_a_file_of_a_published_size_loads_and_steps(small: Any, path: Path, config: LmConfig) -> None:
    module = module_of(small, config)
    shapes, _ = published_shapes(module)
    write_random_bf16(path, shapes, sparse=False)
    small_mimi = replace(module, model=replace(small.module.model, audio_vocab_size=2049, audio_codebooks=32))
    files = replace(small.files(small_mimi), lm=path)
    model = load_model(module, files, device="cpu", threads=1, seed=1)
    assert model.facts.dtype == "bfloat16"
    assert model.facts.n_heads == (4 if config.extra_heads else 0)
    one = np.ones(1, bool)
    model.launch(StepPlan(pcm=np.zeros((1, 1920), np.float32), active=one, reset=one))
    result = model.collect()
    assert 0 <= result.text[0] < config.text_out_vocab_size
    assert result.codes.shape == (1, 32)
    assert np.isfinite(result.pauses).all()
