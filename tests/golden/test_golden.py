"""Our model beside the published packages: see ``make_golden.py`` for how the files were made and what they hold."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from asr_worker.core.model import StepPlan
from asr_worker.model.checkpoint import fill, problems_of, read_header
from asr_worker.model.loading import ModelFiles, load_model
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.needs import mimi_needs
from asr_worker.model.seeded import digest_of, seeded_audio, seeded_weights
from shared.config import ExtraHeadsConfig, LmConfig, MimiConfig, ModuleConfig, TransformerConfig

HERE = Path(__file__).parent
TOKENIZER = HERE.parents[1] / "asr_worker" / "demo" / "tokenizer.model"
BATCH_SIZES = (1, 3, 8)
PAUSE_TOLERANCE = 1e-5


def write_weights(path: Path, described: dict[str, Any], seed: int) -> Path:
    """Make the weights again that the packages had, and be sure that they are the same ones."""
    weights = seeded_weights({name: tuple(shape) for name, shape in described["shapes"].items()}, seed)
    assert digest_of(weights) == described["sha256"]
    save_file(weights, path)
    return path


@dataclass(frozen=True)
class Small:
    arrays: dict[str, np.ndarray]
    meta: dict[str, Any]
    files: ModelFiles

    def load(self, n_slots: int) -> Any:
        lm = dict(self.meta["lm"])
        lm["transformer"] = TransformerConfig(**lm["transformer"])
        lm["extra_heads"] = ExtraHeadsConfig(**lm["extra_heads"])
        mimi = {**self.meta["mimi"], "ratios": tuple(self.meta["mimi"]["ratios"])}
        module = ModuleConfig(
            name="golden",
            path="/api/golden",
            lm_model_file="",
            text_tokenizer_file="",
            audio_tokenizer_file="",
            asr_delay_in_tokens=6,
            batch_size=n_slots,
            model=LmConfig(**lm),
            mimi=MimiConfig(**mimi),
        )
        return load_model(module, self.files, device="cpu", threads=1, seed=0)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    with np.load(HERE / "small.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    folder = tmp_path_factory.mktemp("golden")
    files = ModelFiles(
        lm=write_weights(folder / "lm.safetensors", meta["lm_file"], meta["seed"]),
        mimi=write_weights(folder / "mimi.safetensors", meta["mimi_file"], meta["seed"]),
        tokenizer=TOKENIZER,
    )
    return Small(arrays, meta, files)


def run(small: Small, n_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Step our model through the recorded masks and resets; return codes, tokens and pauses of every step and row."""
    active, reset = small.arrays[f"active_{n_rows}"], small.arrays[f"reset_{n_rows}"]
    pcm = np.stack([seeded_audio(f"row.{row}", len(active), small.meta["seed"]) for row in range(n_rows)], axis=1)
    model = small.load(n_rows)
    codes, text, pauses = [], [], []
    for k in range(len(active)):
        model.launch(StepPlan(pcm=pcm[k], active=active[k], reset=reset[k]))
        result = model.collect()
        codes.append(result.codes.copy())
        text.append(result.text.copy())
        pauses.append(result.pauses.copy())
    return np.stack(codes), np.stack(text), np.stack(pauses)


def frames_since_reset(active: np.ndarray, reset: np.ndarray) -> np.ndarray:
    """For each step and row, how many frames of its session came before."""
    counts = np.zeros(active.shape, int)
    count = np.zeros(active.shape[1], int)
    for k in range(len(active)):
        count[reset[k]] = 0
        counts[k] = count
        count += active[k]
    return counts


@pytest.mark.parametrize("n_rows", BATCH_SIZES)
def test_codes_tokens_and_pauses_are_those_of_the_published_package(small: Small, n_rows: int) -> None:
    active, reset = small.arrays[f"active_{n_rows}"], small.arrays[f"reset_{n_rows}"]
    codes, text, pauses = run(small, n_rows)
    np.testing.assert_array_equal(codes[active], small.arrays[f"codes_{n_rows}"][active])
    np.testing.assert_array_equal(text[active], small.arrays[f"text_{n_rows}"][active])
    np.testing.assert_allclose(pauses[active], small.arrays[f"pauses_{n_rows}"][active], rtol=0, atol=PAUSE_TOLERANCE)
    # The unchanged package differs in the padding of a session's first frame, which is the server's here.
    seen = frames_since_reset(active, reset)
    later = active & (seen > 0)
    np.testing.assert_array_equal(codes[later], small.arrays[f"codes_replicate_{n_rows}"][later])
    first = active & (seen == 0)
    assert (codes[first] != small.arrays[f"codes_replicate_{n_rows}"][first]).any()


@pytest.mark.parametrize("n_rows", BATCH_SIZES)
def test_the_recorded_runs_are_worth_comparing(small: Small, n_rows: int) -> None:
    """Enough steps, rings that wrapped more than once, resets, masks, and answers that are not always the same."""
    active, reset = small.arrays[f"active_{n_rows}"], small.arrays[f"reset_{n_rows}"]
    assert len(active) >= 300
    assert 0.5 < active.mean() < 0.9
    assert reset.sum() > 3 * n_rows
    assert frames_since_reset(active, reset).max() > 3 * small.meta["lm"]["transformer"]["context"]
    assert len(np.unique(small.arrays[f"codes_{n_rows}"])) > 32
    assert len(np.unique(small.arrays[f"text_{n_rows}"])) > 24


def test_the_delay_line_is_lmgen_given_its_first_frame_twice(small: Small) -> None:
    codes = small.arrays["lmgen_codes"].astype(np.int64)
    n_rows = codes.shape[1]
    model = small.load(n_rows)
    silence = np.zeros((n_rows, 1920), np.float32)
    everyone, nobody = np.ones(n_rows, bool), np.zeros(n_rows, bool)
    text, pauses = [], []
    # One step more than frames: a frame is heard in the step after its own.
    for frame in (*codes, codes[0]):
        model.launch(StepPlan(pcm=silence, active=everyone, reset=nobody, codes=frame, encode=nobody))
        result = model.collect()
        text.append(result.text.copy())
        pauses.append(result.pauses.copy())
    np.testing.assert_array_equal(np.stack(text), small.arrays["lmgen_text"])
    np.testing.assert_allclose(np.stack(pauses), small.arrays["lmgen_pauses"], rtol=0, atol=PAUSE_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_mimi_of_the_published_size_gives_the_codes_of_both_packages(tmp_path: Path, n_rows: int) -> None:
    with np.load(HERE / "full_mimi.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))
    header = read_header("mimi", write_weights(tmp_path / "mimi.safetensors", meta["mimi_file"], meta["seed"]))
    n_codebooks = arrays["codes"].shape[1]
    mimi = MimiEncoder(MimiConfig(), n_codebooks).requires_grad_(requires_grad=False)
    assert problems_of(header, mimi_needs(mimi)) == []
    fill(header, mimi_needs(mimi))
    header.path.unlink()
    torch.set_num_threads(1)
    state = mimi.new_state(n_rows)
    pcm = torch.from_numpy(seeded_audio("full", len(arrays["codes"]), meta["seed"]))
    active = torch.ones(n_rows, dtype=torch.bool)
    codes = torch.stack([mimi.step(frame.expand(n_rows, -1), state, active) for frame in pcm], dim=1).numpy()
    for row in range(n_rows):
        np.testing.assert_array_equal(codes[row], arrays["codes"])
        np.testing.assert_array_equal(codes[row][1:], arrays["codes_rustymimi"][1:])
        np.testing.assert_array_equal(codes[row][1:], arrays["codes_replicate"][1:])
