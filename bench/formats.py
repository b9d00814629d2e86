"""What keeping numbers in fewer bits does to what a model says, on CPU. Numbers of tokens, not of time.

    python -m bench.formats [--audio FILE ...] [--steps 800]

    caches   keys and values of the language model (``kv_cache``)
    weights  of the language model (``cpu_weights``)

heard   the demo model hears speech, each format its own tokens: frames whose token differs, and words
forced  each format is fed the same tokens and codes: positions whose best token differs, and by how much scores do

The demo model is small and trained; the random model has 16 layers and heads of 128 as the published one, but no
training, so its best tokens lead by little. All else is float32.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch import Tensor

from asr_worker.core.model import StepPlan
from asr_worker.model.checkpoint import fill, read_header
from asr_worker.model.cpu_weights import CPU_WEIGHTS, trouble_with
from asr_worker.model.kv_cache import KV_FORMATS
from asr_worker.model.lm import LanguageModel
from asr_worker.model.loading import ModelFiles, load_model
from asr_worker.model.needs import lm_needs
from bench.report import Report
from bench.sizes import DEMO
from shared.config import LmConfig, ModuleConfig, TransformerConfig
from shared.config_file import load_config

LIMIT: Final = "the tokens of float32"
CACHES: Final[dict[str, dict[str, str]]] = {f"{name} caches": {"kv_cache": name} for name in KV_FORMATS}
WEIGHTS: Final[dict[str, dict[str, str]]] = {
    f"{name} weights": {"cpu_weights": name} for name in CPU_WEIGHTS if name != "f32" and trouble_with(name) is None
}
PLAIN: Final = "f32"
FORMATS: Final[dict[str, dict[str, str]]] = {PLAIN: {}, **CACHES, **WEIGHTS}
"""What ``load_model`` is told, by what it is called here."""

FRAME: Final = 1920
TAIL_FRAMES: Final = 18
"""Silence after the speech: the delay, and time for the last word to end."""
RANDOM_LM: Final = LmConfig(
    audio_vocab_size=2049,
    text_in_vocab_size=8001,
    text_out_vocab_size=8000,
    audio_codebooks=8,
    transformer=TransformerConfig(
        d_model=512, num_heads=4, num_layers=16, dim_feedforward=2048, context=750, max_period=100_000.0
    ),
)
RANDOM_ROWS: Final = 2


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audio", nargs="+", type=Path, help="mono files at 24 kHz; default: the demo's samples")
    parser.add_argument("--steps", type=int, default=800, help="of the random model; 0: leave it out")
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    parser.add_argument("--label", default="", help="of the kept result, to tell several of a day apart")
    options = parser.parse_args(arguments)
    report = Report("formats", LIMIT, {"steps": options.steps})
    torch.set_num_threads(1)
    audio = streams(options.audio or sorted((DEMO / "samples").glob("*.wav")))
    report.note(audio_s=round(audio.shape[0] * audio.shape[1] * 0.08, 1))
    with torch.inference_mode():
        rows, text, codes = heard(audio)
        rows += forced("demo", demo_lm, text, codes)
        if options.steps:
            random = torch.Generator().manual_seed(1)
            text = torch.randint(4, 8000, (RANDOM_ROWS, options.steps), generator=random)
            codes = torch.randint(0, 2048, (RANDOM_ROWS, options.steps, 8), generator=random)
            rows += forced("random", random_lm, text, codes)
    report.table(rows)
    report.finish(keep=options.keep, label=options.label)
    return 0


def streams(paths: list[Path]) -> NDArray[np.float32]:
    """Return the files as ``[streams, frames, 1920]``, in eight streams of one file after another."""
    frames: list[list[NDArray[np.float32]]] = [[] for _ in range(8)]
    for path in paths:
        samples, rate = soundfile.read(path, dtype="float32")
        assert rate == 24_000, f"{path}: {rate} Hz; 24000 are wanted"
        padded = np.zeros((-(-len(samples) // FRAME) + TAIL_FRAMES) * FRAME, np.float32)
        padded[: len(samples)] = samples
        min(frames, key=len).extend(padded.reshape(-1, FRAME))
    longest = max(map(len, frames))
    silence = np.zeros(FRAME, np.float32)
    return np.array([stream + [silence] * (longest - len(stream)) for stream in frames])


def heard(audio: NDArray[np.float32]) -> tuple[list[dict[str, Any]], Tensor, Tensor]:
    """Let the demo model hear the streams; return rows, and what the plain one said: ``[n, T]``, ``[n, T, codes]``."""
    module = replace(demo_module(), batch_size=len(audio))
    said = {}
    for name, options in FORMATS.items():
        model = load_model(module, demo_files(), device="cpu", threads=1, seed=1, **options)
        everyone = np.ones(len(audio), np.bool_)
        steps = []
        for frame in audio.transpose(1, 0, 2):
            model.launch(StepPlan(pcm=frame, active=everyone, reset=~everyone))
            result = model.collect()
            steps.append((result.text.copy(), result.codes.copy()))
        said[name] = np.stack([text for text, _ in steps], axis=1), np.stack([codes for _, codes in steps], axis=1)
    text, codes = said[PLAIN]
    expected = [words(row) for row in text.tolist()]
    rows = []
    for name in FORMATS:
        found = [words(row) for row in said[name][0].tolist()]
        rows.append(
            {
                "what": "demo, heard",
                "format": name,
                "tokens": text.size,
                "tokens_differ": int((said[name][0] != text).sum()),
                "words": sum(map(len, expected)),
                "words_differ": sum(map(distance, found, expected)),
                "score_error": None,
            }
        )
    return rows, torch.from_numpy(text), torch.from_numpy(codes)


def forced(what: str, make_lm: Callable[[], LanguageModel], text: Tensor, codes: Tensor) -> list[dict[str, Any]]:
    """Feed every format the same tokens, each one step late as the worker does; return rows."""
    everyone = torch.ones(len(text), dtype=torch.bool)
    lm = make_lm()
    lms, rings = {}, {}
    for name, options in FORMATS.items():
        lms[name] = lm
        if "cpu_weights" in options:
            lms[name] = make_lm()
            lms[name].pack(CPU_WEIGHTS[options["cpu_weights"]](len(text)))
        kv_format = KV_FORMATS[options["kv_cache"]] if "kv_cache" in options else None
        rings[name] = lm.new_ring(len(text), kv_format)
    n_differ = dict.fromkeys(FORMATS, 0)
    errors: dict[str, list[float]] = {name: [] for name in FORMATS}
    fed_text = torch.full_like(text[:, 0], lm.config.text_in_vocab_size - 1)
    fed_codes = torch.full_like(codes[:, 0], lm.config.audio_vocab_size - 1)
    for k in range(text.shape[1]):
        scores = {name: lms[name].step(fed_text, fed_codes, ring, everyone)[0] for name, ring in rings.items()}
        plain = scores[PLAIN]
        for name in FORMATS:
            n_differ[name] += int((scores[name].argmax(-1) != plain.argmax(-1)).sum())
            errors[name].append(float((scores[name] - plain).square().mean().sqrt() / plain.std()))
        fed_text, fed_codes = text[:, k], codes[:, k]
    return [
        {
            "what": f"{what}, forced",
            "format": name,
            "tokens": text.numel(),
            "tokens_differ": n_differ[name],
            "words": None,
            "words_differ": None,
            "score_error": float(np.mean(errors[name])),
        }
        for name in FORMATS
    ]


def words(tokens: list[int]) -> list[tuple[int, ...]]:
    """Return the pieces of each word: 0 and 3 end one."""
    ends = [-1, *(i for i, token in enumerate(tokens) if token in {0, 3}), len(tokens)]
    pieces = (tuple(tokens[start + 1 : end]) for start, end in pairwise(ends))
    return [word for word in pieces if word]


def distance(found: list[tuple[int, ...]], expected: list[tuple[int, ...]]) -> int:
    """Return how many words must be changed, added or left out."""
    costs = list(range(len(expected) + 1))
    for i, word in enumerate(found, 1):
        before, costs[0] = costs[0], i
        for j, other in enumerate(expected, 1):
            before, costs[j] = costs[j], min(before + (word != other), costs[j] + 1, costs[j - 1] + 1)
    return costs[-1]


def demo_module() -> ModuleConfig:
    """Return the demo's module."""
    return load_config(DEMO / "demo.toml", {}).service.module(None)


def demo_files() -> ModelFiles:
    """Return the demo's files."""
    return ModelFiles(lm=DEMO / "lm.safetensors", mimi=DEMO / "mimi.safetensors", tokenizer=DEMO / "tokenizer.model")


def demo_lm() -> LanguageModel:
    """Return the demo's language model alone."""
    config = demo_module().model
    lm = LanguageModel(config, hidden=config.transformer.hidden, dtype=torch.float32)
    fill(read_header("lm", demo_files().lm), lm_needs(lm.requires_grad_(requires_grad=False)))
    return lm


def random_lm() -> LanguageModel:
    """Return a model of normal random weights that keep a layer's scale."""
    lm = LanguageModel(RANDOM_LM, hidden=RANDOM_LM.transformer.hidden, dtype=torch.float32)
    random = torch.Generator().manual_seed(1)
    for name, parameter in lm.named_parameters():
        if name.endswith("alpha"):
            parameter.data.fill_(1.0)
        else:
            parameter.data.normal_(0.0, parameter.shape[-1] ** -0.5, generator=random)
    return lm.requires_grad_(requires_grad=False)


if __name__ == "__main__":
    sys.exit(main())
