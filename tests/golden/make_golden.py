"""Make the golden files beside this script with the published packages.

Run it in an environment of its own that has `moshi` 0.2.13, `rustymimi` 0.4.1, torch (CPU) and safetensors, from the
root of this repository:

    NO_TORCH_COMPILE=1 OMP_NUM_THREADS=1 PYTHONPATH=. PYTHON tests/golden/make_golden.py

Nothing of our model is used here: only `seeded.py`, which makes the weights and the audio from a seed in both
environments. The files hold what the packages answered, the sizes, and a hash of the weights.

Where the package and the Rust server, whose rules are ours, differ (docs/model.md, section 11), this is recorded:

- First frame: the package repeats the first latent before the downsample, the server has zeros there. Small Mimi runs
  twice, once as published (`codes_replicate`, to be compared without each session's first frame) and once with the
  package's own convolution switched to its own `constant` padding (`codes`, to be compared whole).
- One-frame delay: the package's LMGen drops a stream's first frame. So the published LMModel is stepped directly and
  fed by the delay line of section 6, which the few lines of `delay_line` below spell out a second time; and LMGen
  runs as published, with its first frame given twice as the package's own run_inference does (`lmgen_*`).
- Reset: the package forgets the activity mask on a reset, so the mask is set after it.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rustymimi
import torch
from moshi.models import LMGen, loaders
from safetensors.torch import save_file

from asr_worker.model.seeded import digest_of, seeded_audio, seeded_noise, seeded_weights

HERE = Path(__file__).parent
SEED = 20261122
N_STEPS = 320
BATCH_SIZES = (1, 3, 8)
N_LMGEN_STEPS = 120
N_FULL_FRAMES = 12

# Small contexts, so that every ring is overwritten many times; two codebooks and embeddings fewer than Mimi has.
LM = {
    "audio_vocab_size": 65,
    "text_in_vocab_size": 49,
    "text_out_vocab_size": 48,
    "audio_codebooks": 4,
    "extra_heads": {"num_heads": 4, "dim": 6},
    "transformer": {
        "d_model": 64,
        "num_heads": 2,
        "num_layers": 3,
        "dim_feedforward": 96,
        "context": 24,
        "max_period": 100000.0,
    },
}
MIMI = {
    "n_filters": 4,
    "ratios": [4, 5, 6, 8],
    "dimension": 32,
    "num_layers": 2,
    "num_heads": 4,
    "dim_feedforward": 64,
    "context": 20,
    "max_period": 10000.0,
    "codebook_size": 64,
    "codebook_dim": 16,
}
N_CODEBOOKS_IN_FILE = 6


def published_name(own: str) -> str:
    """Return the name in the published files of a tensor of the package's own modules, which load both."""
    return own.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0.weight", "out_proj.weight")


def seeded(model: torch.nn.Module) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Give a published model its seeded weights; return them, and their shapes and hash for the golden file."""
    shapes = {published_name(name): list(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = seeded_weights({name: tuple(shape) for name, shape in shapes.items()}, SEED)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()}, strict=True)
    model.eval()
    return weights, {"shapes": shapes, "sha256": digest_of(weights)}


def small_mimi() -> tuple[torch.nn.Module, dict[str, object]]:
    transformer = {
        **loaders._transformer_kwargs,
        "d_model": MIMI["dimension"],
        "num_heads": MIMI["num_heads"],
        "num_layers": MIMI["num_layers"],
        "dim_feedforward": MIMI["dim_feedforward"],
        "context": MIMI["context"],
        "max_period": MIMI["max_period"],
        "input_dimension": MIMI["dimension"],
        "output_dimensions": [MIMI["dimension"]],
    }
    quantizer = {
        "dimension": MIMI["codebook_dim"],
        "n_q": N_CODEBOOKS_IN_FILE,
        "bins": MIMI["codebook_size"],
        "input_dimension": MIMI["dimension"],
        "output_dimension": MIMI["dimension"],
    }
    seanet = {**loaders._seanet_kwargs, "dimension": MIMI["dimension"], "n_filters": MIMI["n_filters"]}
    config = {**loaders._mimi_config, "seanet": seanet, "transformer": transformer, "quantizer": quantizer}
    model = loaders.get_mimi(None, config, num_codebooks=LM["audio_codebooks"])
    return model, seeded(model)[1]


def small_lm() -> tuple[torch.nn.Module, dict[str, object]]:
    transformer = LM["transformer"]
    model = loaders.get_moshi_lm(
        None,
        {
            "dim": transformer["d_model"],
            "text_card": LM["text_out_vocab_size"],
            "existing_text_padding_id": 3,
            "n_q": LM["audio_codebooks"],
            "dep_q": 0,
            "card": LM["audio_vocab_size"] - 1,
            "num_heads": transformer["num_heads"],
            "num_layers": transformer["num_layers"],
            "hidden_scale": transformer["dim_feedforward"] / transformer["d_model"],
            "causal": True,
            "layer_scale": None,
            "context": transformer["context"],
            "max_period": transformer["max_period"],
            "gating": "silu",
            "norm": "rms_norm_f32",
            "positional_embedding": "rope",
            "delays": [0] * (LM["audio_codebooks"] + 1),
            "extra_heads_num_heads": LM["extra_heads"]["num_heads"],
            "extra_heads_dim": LM["extra_heads"]["dim"],
        },
        device="cpu",
        dtype=torch.float32,
    )
    return model, seeded(model)[1]


def masks(n_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows step (3 of 4) and which begin a new session (1 of 40), as ``[N_STEPS, n_rows]``."""
    active = seeded_noise(f"active.{n_rows}", (N_STEPS, n_rows), SEED) < 0.5
    reset = seeded_noise(f"reset.{n_rows}", (N_STEPS, n_rows), SEED) < -0.95
    reset[0] = True
    return active, reset


def mimi_codes(mimi: torch.nn.Module, active: np.ndarray, reset: np.ndarray, *, pad_mode: str) -> np.ndarray:
    n_rows = active.shape[1]
    pcm = np.stack([seeded_audio(f"row.{row}", N_STEPS, SEED) for row in range(n_rows)], axis=1)
    mimi.downsample.conv.pad_mode = pad_mode
    codes = []
    with mimi.streaming(n_rows):
        for k in range(N_STEPS):
            mimi.reset_streaming(torch.from_numpy(reset[k]))
            mimi.set_exec_mask(torch.from_numpy(active[k]))
            codes.append(mimi.encode(torch.from_numpy(pcm[k])[:, None])[:, :, 0].numpy())
    return np.stack(codes)


def delay_line(
    lm: torch.nn.Module, active: np.ndarray, reset: np.ndarray, codes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Step the published LMModel: step k of a session hears frame k - 1; step 0 a start token and padding codes."""
    n_rows = active.shape[1]
    fed = np.zeros((n_rows, 1 + LM["audio_codebooks"]), np.int64)
    with lm.streaming(n_rows):
        for k in range(N_STEPS):
            fed[reset[k], 0] = LM["text_in_vocab_size"] - 1
            fed[reset[k], 1:] = LM["audio_vocab_size"] - 1
            lm.reset_streaming(torch.from_numpy(reset[k]))
            lm.set_exec_mask(torch.from_numpy(active[k]))
            out, logits = lm.forward_text(torch.from_numpy(fed)[:, :, None])
            text = logits[:, 0, 0].argmax(dim=-1).numpy()
            heads = [torch.softmax(head(out)[:, 0].float(), dim=-1)[:, 0] for head in lm.extra_heads]
            fed[active[k], 0] = text[active[k]]
            fed[active[k], 1:] = codes[k][active[k]]
            yield text, torch.stack(heads, dim=-1).numpy()


def lmgen_run(lm: torch.nn.Module, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Run LMGen as published over ``[steps, rows, n]``, the first frame given twice."""
    gen = LMGen(lm, use_sampling=False)
    text, pauses = [], []
    with gen.streaming(codes.shape[1]):
        for frame in (codes[0], *codes):
            answer = gen.step_with_extra_heads(torch.from_numpy(frame)[:, :, None])
            if answer is not None:
                text.append(answer[0][:, 0, 0].numpy())
                pauses.append(torch.stack([head[:, 0, 0] for head in answer[1]], dim=-1).numpy())
    return np.stack(text), np.stack(pauses)


def make_small() -> None:
    mimi, mimi_file = small_mimi()
    lm, lm_file = small_lm()
    meta = {"seed": SEED, "lm": LM, "mimi": MIMI, "lm_file": lm_file, "mimi_file": mimi_file}
    arrays = {"meta": np.array(json.dumps(meta))}
    for n_rows in BATCH_SIZES:
        active, reset = masks(n_rows)
        codes = mimi_codes(mimi, active, reset, pad_mode="constant")
        replicated = mimi_codes(mimi, active, reset, pad_mode="replicate")
        answers = list(delay_line(lm, active, reset, codes))
        arrays |= {
            f"active_{n_rows}": active,
            f"reset_{n_rows}": reset,
            f"codes_{n_rows}": codes.astype(np.uint8),
            f"codes_replicate_{n_rows}": replicated.astype(np.uint8),
            f"text_{n_rows}": np.stack([text for text, _ in answers]).astype(np.uint8),
            f"pauses_{n_rows}": np.stack([pauses for _, pauses in answers]),
        }
    noise = seeded_noise("lmgen", (N_LMGEN_STEPS, 3, LM["audio_codebooks"]), SEED)
    codes = ((noise + 1) * (LM["audio_vocab_size"] - 1) / 2).astype(np.int64)
    arrays["lmgen_codes"] = codes.astype(np.uint8)
    text, arrays["lmgen_pauses"] = lmgen_run(lm, codes)
    arrays["lmgen_text"] = text.astype(np.uint8)
    np.savez_compressed(HERE / "small.npz", **arrays)


def make_full_mimi() -> None:
    """Record the codes of a Mimi of the published size, by both packages."""
    mimi = loaders.get_mimi(None, num_codebooks=32)
    weights, mimi_file = seeded(mimi)
    pcm = seeded_audio("full", N_FULL_FRAMES, SEED)
    arrays = {"meta": np.array(json.dumps({"seed": SEED, "mimi_file": mimi_file}))}
    for pad_mode, name in (("constant", "codes"), ("replicate", "codes_replicate")):
        mimi.downsample.conv.pad_mode = pad_mode
        with mimi.streaming(1):
            codes = [mimi.encode(torch.from_numpy(frame)[None, None])[0, :, 0].numpy() for frame in pcm]
        arrays[name] = np.stack(codes).astype(np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mimi.safetensors"
        save_file({name: torch.from_numpy(array) for name, array in weights.items()}, path)
        rust = rustymimi.Tokenizer(os.fspath(path), num_codebooks=32)
        codes = [rust.encode_step(frame[None, None])[0, :, 0] for frame in pcm]
    arrays["codes_rustymimi"] = np.stack(codes).astype(np.uint16)
    # The two packages agree with each other, or one of them was given other weights.
    np.testing.assert_array_equal(arrays["codes_rustymimi"], arrays["codes_replicate"])
    np.savez_compressed(HERE / "full_mimi.npz", **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        make_small()
        make_full_mimi()
