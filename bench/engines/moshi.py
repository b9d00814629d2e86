"""The published ``moshi`` package, used as moshi-server's ``batched_asr.py`` uses it.

Each step: ``set_exec_mask``, ``mimi.encode``, ``LMGen.step_with_extra_heads``, the results to numpy. Its attention
always reads whole rings, so ``Spec.fill`` changes nothing here.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from moshi.models import LMGen, loaders
from safetensors.torch import load_file

from asr_worker.model.seeded import seeded_audio
from bench.engines.process import Spec, serve


class MoshiEngine:
    """Steps ``MimiModel`` and ``LMGen``."""

    def __init__(self, spec: Spec) -> None:
        torch.set_num_threads(spec.threads)
        torch.backends.cudnn.allow_tf32 = False
        self._device = torch.device(spec.device)
        self._mimi = build_mimi(spec).to(self._device)
        self._gen = LMGen(build_lm(spec), use_sampling=False)
        self._mimi.streaming_forever(spec.batch)
        self._gen.streaming_forever(spec.batch)
        self._pcm = torch.from_numpy(seeded_audio("bench", 1, 1))[None].repeat(spec.batch, 1, 1).numpy()
        self._mask = torch.zeros(spec.batch, dtype=torch.bool)
        self._mask[spec.active_rows()] = True

    @torch.no_grad()
    def step(self) -> None:
        """Run one step as the service does."""
        mask = self._mask.to(self._device)
        self._mimi.set_exec_mask(mask)
        self._gen.set_exec_mask(mask)
        codes = self._mimi.encode(torch.from_numpy(self._pcm).to(self._device))
        answer = self._gen.step_with_extra_heads(codes)
        if answer is not None:
            text, heads = answer
            text.cpu().numpy()
            [head.float().cpu().numpy() for head in heads]


def build_mimi(spec: Spec) -> Any:
    """Return the package's Mimi with the weights of the spec's file; its decoder stays random."""
    size = spec.mimi
    transformer = {
        **loaders._transformer_kwargs,  # noqa: SLF001  (where the package keeps its published sizes)
        "d_model": size["dimension"],
        "num_heads": size["num_heads"],
        "num_layers": size["num_layers"],
        "dim_feedforward": size["dim_feedforward"],
        "context": size["context"],
        "max_period": size["max_period"],
        "input_dimension": size["dimension"],
        "output_dimensions": [size["dimension"]],
    }
    quantizer = {
        "dimension": size["codebook_dim"],
        "n_q": spec.model["audio_codebooks"],
        "bins": size["codebook_size"],
        "input_dimension": size["dimension"],
        "output_dimension": size["dimension"],
    }
    seanet = {**loaders._seanet_kwargs, "dimension": size["dimension"], "n_filters": size["n_filters"]}  # noqa: SLF001
    config = {**loaders._mimi_config, "seanet": seanet, "transformer": transformer, "quantizer": quantizer}  # noqa: SLF001
    mimi = loaders.get_mimi(None, config, num_codebooks=spec.model["audio_codebooks"])
    missing, unexpected = mimi.load_state_dict(load_file(Path(spec.folder) / "mimi.safetensors"), strict=False)
    assert not unexpected, unexpected
    assert not [name for name in missing if name.startswith("encoder")], missing
    return mimi


def build_lm(spec: Spec) -> Any:
    """Return the package's language model with the weights of the spec's file."""
    model, size = spec.model, spec.model["transformer"]
    heads = model["extra_heads"] or {"num_heads": 0, "dim": 6}
    weights = load_file(Path(spec.folder) / "lm.safetensors")
    hidden = weights["transformer.layers.0.gating.linear_out.weight"].shape[1]
    config = {
        "dim": size["d_model"],
        "text_card": model["text_out_vocab_size"],
        "existing_text_padding_id": 3,
        "n_q": model["audio_codebooks"],
        "dep_q": 0,
        "card": model["audio_vocab_size"] - 1,
        "num_heads": size["num_heads"],
        "num_layers": size["num_layers"],
        # From moshi-server's number the package would take another width where it is 4 * d_model, as for 1B.
        "hidden_scale": 1.5 * hidden / size["d_model"],
        "causal": True,
        "layer_scale": None,
        "context": size["context"],
        "max_period": size["max_period"],
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "delays": [0] * (model["audio_codebooks"] + 1),
        # With no depformer codebooks, this is what keeps its input projection out of the model.
        "depformer_multi_linear": True,
        "extra_heads_num_heads": heads["num_heads"],
        "extra_heads_dim": heads["dim"],
    }
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[spec.dtype]
    lm = loaders.get_moshi_lm(None, config, device=spec.device, dtype=dtype)
    lm.load_state_dict(weights, strict=True)
    return lm.eval()


if __name__ == "__main__":
    serve(MoshiEngine, {"torch": torch.__version__, "moshi": version("moshi")})
