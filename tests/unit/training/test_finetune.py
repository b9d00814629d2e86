"""The fine-tuning door on random weights. The published 1B model has 16 layers of the widths used here."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from shared.config import ModuleConfig
from training.encoder import init_encoder
from training.finetune import FineTuning, fine_tune
from training.net import Net, init_lm
from training.published import export, lm_tensors, mimi_tensors, module_of
from training.quantise import MovingCodebooks

FULL_WIDTHS = """
[modules.asr]
path = "/api/asr-streaming"
type = "BatchedAsr"
lm_model_file = "lm.safetensors"
text_tokenizer_file = "tokenizer.model"
audio_tokenizer_file = "mimi.safetensors"
asr_delay_in_tokens = 6
batch_size = 1
[modules.asr.model]
audio_vocab_size = 2049
text_in_vocab_size = 8001
text_out_vocab_size = 8000
audio_codebooks = 32
[modules.asr.model.transformer]
d_model = 2048
num_heads = 16
num_layers = 1
dim_feedforward = 8192
context = 750
max_period = 100000
gating = "silu"
norm = "RmsNorm"
positional_embedding = "Rope"
[modules.asr.model.extra_heads]
num_heads = 4
dim = 6
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    seconds = np.arange(24_000) / 16_000
    soundfile.write(tmp_path / "clip.wav", 0.1 * np.sin(2 * np.pi * 440 * seconds), 16_000)
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps({"audio": "clip.wav", "words": [["stop", 0.1, 0.5], ["music", 0.6, 1.2]]}) + "\n")
    return path


def test_fine_tuning_lowers_the_loss_and_leaves_the_tables_alone(
    micro: ModuleConfig, micro_toml: Path, manifest: Path, tmp_path: Path
) -> None:
    net = Net(micro, seed=3)
    net.codebooks.follow(net.mimi.quantizer, per_batch=64)
    export(net, micro_toml, tmp_path / "before")
    plan = FineTuning(
        config=tmp_path / "before" / "demo.toml", manifest=manifest, out=tmp_path / "after", steps=12, rate=3e-3
    )
    losses = fine_tune(plan, lambda _: None)
    assert losses[-1] < losses[0]
    before, after = (load_file(tmp_path / name / "lm.safetensors") for name in ("before", "after"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "text_linear.weight" in changed
    assert "transformer.layers.0.self_attn.in_proj_weight" in changed
    assert not {name for name in changed if name.startswith(("emb.", "text_emb", "extra_heads"))}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_step_at_the_widths_of_the_1b_model(
    micro: ModuleConfig, micro_toml: Path, manifest: Path, tmp_path: Path
) -> None:
    """One layer of sixteen: all sixteen and Adam's moments would not fit into the memory of a CI machine."""
    folder = tmp_path / "wide"
    folder.mkdir()
    (folder / "demo.toml").write_text(header_of(micro_toml) + FULL_WIDTHS)
    export(Net(micro, seed=3), micro_toml, tmp_path / "micro")
    shutil.copyfile(tmp_path / "micro" / "tokenizer.model", folder / "tokenizer.model")
    write_random_weights(folder)
    losses = fine_tune(
        FineTuning(config=folder / "demo.toml", manifest=manifest, out=tmp_path / "out", steps=1, batch_size=1),
        lambda _: None,
    )
    assert len(losses) == 1
    assert np.isfinite(losses[0])
    assert (tmp_path / "out" / "lm.safetensors").stat().st_size == (folder / "lm.safetensors").stat().st_size


def header_of(toml: Path) -> str:
    return toml.read_text().split("\n[modules")[0]


def write_random_weights(folder: Path) -> None:
    module = module_of(folder / "demo.toml")
    generator = torch.Generator().manual_seed(1)
    lm = LanguageModel(module.model, hidden=module.model.transformer.hidden, dtype=torch.bfloat16)
    init_lm(lm, generator)
    save_file(lm_tensors(lm), folder / "lm.safetensors")
    mimi = MimiEncoder(module.mimi, module.model.audio_codebooks)
    init_encoder(mimi, generator)
    codebooks = MovingCodebooks(mimi.quantizer)
    codebooks.sums.normal_(generator=generator)
    save_file(mimi_tensors(mimi, codebooks), folder / "mimi.safetensors")
