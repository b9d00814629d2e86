"""The models that are measured: the demo model, and seeded random weights in published layouts.

demo   the checkpoint that ships with the package
full   Mimi of the published size (8 codebooks), a 4-layer language model: what two CPU cores can step
1b     the published 1B shape, for a GPU
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any, Final

import torch

from asr_worker.model.seeded_files import write_seeded_files
from bench.engines.process import ROOT
from shared.config import ExtraHeadsConfig, LmConfig, MimiConfig, ModuleConfig, TransformerConfig
from shared.config_file import load_config

DEMO: Final = ROOT / "asr_worker" / "demo"
SEED: Final = 20_261_122

_HEADS: Final = {"num_heads": 4, "dim": 6}
_FULL_LM: Final = {
    "audio_vocab_size": 2049,
    "text_in_vocab_size": 501,
    "text_out_vocab_size": 500,
    "audio_codebooks": 8,
    "extra_heads": _HEADS,
    "transformer": {
        "d_model": 256,
        "num_heads": 4,
        "num_layers": 4,
        "dim_feedforward": 1056,
        "context": 750,
        "max_period": 100_000.0,
    },
}
_1B_LM: Final = {
    "audio_vocab_size": 2049,
    "text_in_vocab_size": 8001,
    "text_out_vocab_size": 8000,
    "audio_codebooks": 32,
    "extra_heads": _HEADS,
    "transformer": {
        "d_model": 2048,
        "num_heads": 16,
        "num_layers": 16,
        "dim_feedforward": 8192,
        "context": 750,
        "max_period": 100_000.0,
    },
}
SEEDED: Final[dict[str, dict[str, Any]]] = {"full": _FULL_LM, "1b": _1B_LM}
NAMES: Final = ("demo", *SEEDED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One model: its sizes, and the folder with its three files."""

    name: str
    lm: LmConfig
    mimi: MimiConfig
    folder: Path

    def spec_fields(self) -> dict[str, Any]:
        """Return what an engine's ``Spec`` says of the model, as plain dicts."""
        return {"folder": str(self.folder), "model": asdict(self.lm), "mimi": asdict(self.mimi)}


def prepare(name: str, folder: Path) -> Size:
    """Return the size called ``name``; seeded weights are written below ``folder``."""
    if name == "demo":
        module = load_config(DEMO / "demo.toml", {}).service.module(None)
        return Size(name=name, lm=module.model, mimi=module.mimi, folder=DEMO)
    size = Size(name=name, lm=lm_config(SEEDED[name]), mimi=MimiConfig(), folder=folder / name)
    if not size.folder.exists():
        size.folder.mkdir(parents=True)
        tokenizer = size.folder / "tokenizer.model"
        copyfile(DEMO / "tokenizer.model", tokenizer)
        # 1B has nearly 2 GB: as published, in bf16.
        dtype = torch.bfloat16 if name == "1b" else torch.float32
        write_seeded_files(_module_of(size), size.folder, tokenizer=tokenizer, seed=SEED, dtype=dtype)
    return size


def lm_config(fields: dict[str, Any]) -> LmConfig:
    """Return the ``LmConfig`` of plain dicts."""
    heads = fields.get("extra_heads")
    return LmConfig(
        **{
            **fields,
            "transformer": TransformerConfig(**fields["transformer"]),
            "extra_heads": ExtraHeadsConfig(**heads) if heads else None,
        }
    )


def mimi_config(fields: dict[str, Any]) -> MimiConfig:
    """Return the ``MimiConfig`` of a plain dict."""
    return MimiConfig(**{**fields, "ratios": tuple(fields["ratios"])})


def _module_of(size: Size) -> ModuleConfig:
    return ModuleConfig(
        name="bench",
        path="/bench",
        lm_model_file="lm.safetensors",
        text_tokenizer_file="tokenizer.model",
        audio_tokenizer_file="mimi.safetensors",
        asr_delay_in_tokens=6,
        batch_size=1,
        model=size.lm,
        mimi=size.mimi,
    )
