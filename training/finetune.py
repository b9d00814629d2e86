"""The fine-tuning door: adapt a published checkpoint of any size to (audio, words with times).

The encoder and its codes stay as they are, and so do the language model's input tables: only layers, norms and the
text scores learn. That is what fits a checkpoint like the 1B model into one large GPU in float32 with Adam (about
15 GB for its 840 million learning parameters). **Untested on real weights**: a test runs one step on random weights of
the 1B model's widths.

Recordings and their words come from a manifest (`training.manifest`).
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import sentencepiece
import soxr
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from asr_worker.model.checkpoint import Header, fill, problems_of, read_header
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.needs import hidden_width, lm_needs, mimi_needs
from shared.config import ModuleConfig
from shared.errors import CheckpointError
from shared.units import FRAME_SAMPLES, SAMPLE_RATE
from training.losses import fed_text
from training.manifest import read_manifest
from training.published import lm_tensors, module_of
from training.targets import PAD, layout

_CORRUPTED_TEXT: Final = 0.05
_PAD_WEIGHT: Final = 0.5
_FROZEN: Final = ("text_emb", "audio_emb", "extra_heads")


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What to adapt, to what, and for how long."""

    config: Path
    manifest: Path
    out: Path
    steps: int = 1000
    batch_size: int = 4
    rate: float = 1e-5
    max_s: float = 30.0
    device: str = "cpu"
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Example:
    """One recording: 24 kHz samples and its words as (pieces, start, end in s)."""

    pcm: np.ndarray
    words: Sequence[tuple[Sequence[int], float, float]]


def fine_tune(plan: FineTuning, say: Callable[[str], None]) -> list[float]:
    """Adapt the checkpoint of ``plan.config`` and write it into ``plan.out``; return the loss of every step.

    Raises:
        CheckpointError: the files do not fit the configuration.
        ConfigError: the manifest is empty, or a line of it is not as described.
    """
    torch.manual_seed(plan.seed)
    module = module_of(plan.config)
    lm, mimi = load(module, plan.config.parent, plan.device)
    examples = examples_of(plan.manifest, plan.config.parent / module.text_tokenizer_file, plan.max_s)
    learning = [p for name, p in lm.named_parameters() if name not in _FROZEN]
    lm.requires_grad_(requires_grad=False)
    for parameter in learning:
        parameter.requires_grad_()
    optimiser = torch.optim.AdamW(learning, lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(plan.seed)
    found: list[float] = []
    for step in range(plan.steps):
        order = torch.randint(len(examples), (plan.batch_size,), generator=generator)
        loss = _loss(lm, mimi, [examples[int(i)] for i in order], module.delay_frames, generator)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimiser.step()
        found.append(float(loss.detach()))
        if step % 10 == 0 or step == plan.steps - 1:
            say(f"step {step + 1} of {plan.steps}: loss {found[-1]:.3f}")
    _write(lm, module, plan)
    return found


def load(module: ModuleConfig, folder: Path, device: str) -> tuple[LanguageModel, MimiEncoder]:
    """Load a published checkpoint's weights in float32.

    Raises:
        CheckpointError: the files do not fit the configuration; names everything.
    """
    lm_header = read_header("lm_model_file", folder / module.lm_model_file)
    mimi_header = read_header("audio_tokenizer_file", folder / module.audio_tokenizer_file)
    hidden = hidden_width(module.model.transformer, lm_header)
    with torch.device(device):
        lm = LanguageModel(module.model, hidden=hidden, dtype=torch.float32)
        mimi = MimiEncoder(module.mimi, module.model.audio_codebooks).requires_grad_(requires_grad=False)
    _fill(lm_header, mimi_header, lm, mimi)
    return lm, mimi


def examples_of(manifest: Path, tokenizer: Path, max_s: float) -> list[Example]:
    """Read all recordings of a manifest, cut at ``max_s``.

    Raises:
        ConfigError: no recording, or a line that is not as described: names the line.
    """
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    return [
        Example(
            pcm=soxr.resample(recording.pcm, recording.rate_hz, SAMPLE_RATE)[: int(max_s * SAMPLE_RATE)],
            words=[(pieces.encode(w.text), w.start_s, w.end_s) for w in recording.words if w.end_s <= max_s],
        )
        for recording in read_manifest(manifest)
    ]


def _loss(
    lm: LanguageModel, mimi: MimiEncoder, examples: Sequence[Example], delay: int, generator: torch.Generator
) -> Tensor:
    device = lm.text_emb.device
    # So much silence behind the speech that its last word is said.
    n_frames = max(len(one.pcm) for one in examples) // FRAME_SAMPLES + delay + 2
    pcm = np.stack([np.pad(one.pcm, (0, n_frames * FRAME_SAMPLES - len(one.pcm))) for one in examples])
    wanted = torch.from_numpy(np.stack([layout(one.words, n_frames, delay) for one in examples])).to(device)
    with torch.no_grad():
        codes = mimi(torch.from_numpy(pcm).float().to(device))
    codes = functional.pad(codes, (0, 0, 1, 0), value=lm.config.audio_vocab_size - 1)
    fed = fed_text(wanted, lm.config.text_in_vocab_size - 1, generator, _CORRUPTED_TEXT)
    scores, _ = lm(fed, codes)
    weight = torch.where(wanted == PAD, _PAD_WEIGHT, 1.0)
    each = functional.cross_entropy(scores.float().flatten(0, 1), wanted.flatten(), reduction="none")
    return (each * weight.flatten()).sum() / weight.sum()


def _fill(lm_header: Header, mimi_header: Header, lm: LanguageModel, mimi: MimiEncoder) -> None:
    problems = problems_of(lm_header, lm_needs(lm)) + problems_of(mimi_header, mimi_needs(mimi))
    if problems:
        raise CheckpointError(*problems)
    fill(lm_header, lm_needs(lm))
    fill(mimi_header, mimi_needs(mimi))


def _write(lm: LanguageModel, module: ModuleConfig, plan: FineTuning) -> None:
    plan.out.mkdir(parents=True, exist_ok=True)
    save_file(lm_tensors(lm), plan.out / module.lm_model_file)
    for name in (module.audio_tokenizer_file, module.text_tokenizer_file):
        shutil.copyfile(plan.config.parent / name, plan.out / name)
    shutil.copyfile(plan.config, plan.out / plan.config.name)
