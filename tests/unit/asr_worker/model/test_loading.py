import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from asr_worker.core.model import StepPlan
from asr_worker.model import pages
from asr_worker.model.checkpoint import read_header
from asr_worker.model.loading import fingerprint, load_model
from asr_worker.model.needs import hidden_width
from asr_worker.model.seeded import seeded_audio
from shared.config import ModuleConfig
from shared.errors import CheckpointError, ConfigError


def tokens(model: Any) -> list[int]:
    everyone = np.ones(model.facts.n_slots, bool)
    said = []
    for frame in seeded_audio("speech", 15, 1):
        pcm = np.repeat(frame[None], len(everyone), axis=0)
        model.launch(StepPlan(pcm=pcm, active=everyone, reset=~everyone))
        said += model.collect().text.tolist()
    return said


def problems(module: ModuleConfig, files: Any, **changes: Path) -> list[str]:
    with pytest.raises(CheckpointError) as caught:
        load_model(module, replace(files, **changes), device="cpu", threads=1, seed=1)
    return list(caught.value.problems)


def test_loading_is_silent_when_all_is_well(small: Any) -> None:
    assert small.load().warnings == ()


def test_bfloat16_files_load_into_float32(small: Any, tmp_path: Path) -> None:
    files = small.files()
    save_file({name: tensor.bfloat16() for name, tensor in load_file(files.lm).items()}, tmp_path / "lm")
    model = load_model(small.module, replace(files, lm=tmp_path / "lm"), device="cpu", threads=1, seed=1)
    assert model.facts.dtype == "float32"
    assert len(set(tokens(model))) > 4


@pytest.mark.parametrize(("override", "dtype"), [("bf16", "bfloat16"), ("f16", "float16"), ("f32", "float32")])
def test_the_override_decides_the_dtype(small: Any, override: str, dtype: str) -> None:
    model = small.load(replace(small.module, dtype_override=override))
    assert model.facts.dtype == dtype
    assert len(set(tokens(model))) > 4


def test_numbers_that_the_dtype_cannot_hold_are_refused(small: Any, tmp_path: Path) -> None:
    files, tensors = small.files(), load_file(small.files().lm)
    tensors["text_linear.weight"][3, 0] = 1e6
    save_file(tensors, tmp_path / "lm")
    half = replace(small.module, dtype_override="f16")
    load_model(small.module, replace(files, lm=tmp_path / "lm"), device="cpu", threads=1, seed=1)
    assert problems(half, files, lm=tmp_path / "lm") == [
        f"lm_model_file {tmp_path / 'lm'}: 'text_linear' holds infinity or NaN once it is read as float16"
    ]


def test_too_little_memory_is_told_as_such(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(pages, "LARGE_PAGE", 1)
    monkeypatch.setattr(pages.mmap, "mmap", refuse)
    with pytest.raises(ConfigError, match=r"no place on cpu for the model with batch_size = .*Cannot allocate memory"):
        small.load()


def test_fewer_codebooks_than_the_file_has_are_enough(small: Any) -> None:
    fewer = replace(small.module, model=replace(small.module.model, audio_codebooks=3))
    model = load_model(fewer, small.files(), device="cpu", threads=1, seed=1)
    assert model.facts.n_codebooks == 3
    assert tokens(model) != tokens(small.load())


def test_more_codebooks_than_the_file_has_are_missing(small: Any) -> None:
    files = small.files()
    more = replace(small.module, model=replace(small.module.model, audio_codebooks=6))
    assert problems(more, files) == [
        f"lm_model_file {files.lm}: tensor 'emb.*.weight' (2 tensors): missing, expected shape [33, 32]",
        (
            f"audio_tokenizer_file {files.mimi}: tensor 'quantizer.rvq_rest.vq.layers.*._codebook.cluster_usage' "
            "(2 tensors): missing, expected shape [32]"
        ),
        (
            f"audio_tokenizer_file {files.mimi}: tensor 'quantizer.rvq_rest.vq.layers.*._codebook.embedding_sum' "
            "(2 tensors): missing, expected shape [32, 16]"
        ),
    ]


def test_a_model_is_not_cut_short(small: Any) -> None:
    files = small.files()
    transformer = replace(small.module.model.transformer, num_layers=1)
    fewer = replace(
        small.module,
        model=replace(small.module.model, transformer=transformer),
        mimi=replace(small.module.mimi, num_layers=1),
    )
    assert problems(fewer, files) == [
        f"lm_model_file {files.lm}: has 2 layers of 'transformer', num_layers is 1",
        f"audio_tokenizer_file {files.mimi}: has 2 layers of 'encoder_transformer.transformer', num_layers is 1",
    ]


def test_heads_that_the_file_lacks_are_missing_and_heads_that_nobody_wants_are_ignored(small: Any) -> None:
    headless = replace(small.module, model=replace(small.module.model, extra_heads=None))
    found = problems(small.module, small.files(headless))
    assert len(found) == 1
    assert found[0].endswith("tensor 'extra_heads.*.weight' (4 tensors): missing, expected shape [6, 32]")
    assert load_model(headless, small.files(), device="cpu", threads=1, seed=1).facts.n_heads == 0


def test_files_in_each_other_s_place_are_one_error_about_both(small: Any) -> None:
    files = small.files()
    found = problems(small.module, files, lm=files.mimi, mimi=files.lm)
    assert {problem.split()[0] for problem in found} == {"lm_model_file", "audio_tokenizer_file"}
    assert all("missing" in problem for problem in found)


def test_three_bad_files_are_one_error(small: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    found = problems(
        small.module, small.files(), lm=tmp_path / "no", mimi=tmp_path / "empty", tokenizer=tmp_path / "empty"
    )
    assert [problem.split()[0] for problem in found] == [
        "lm_model_file",
        "audio_tokenizer_file",
        "text_tokenizer_file",
    ]


def test_a_tokenizer_with_more_pieces_than_tokens_is_refused(small: Any) -> None:
    files = small.files()
    fewer = replace(small.module, model=replace(small.module.model, text_out_vocab_size=45))
    assert problems(fewer, files) == [
        f"text_tokenizer_file {files.tokenizer}: has 46 pieces, text_out_vocab_size is 45",
        f"lm_model_file {files.lm}: tensor 'text_linear.weight': found shape [48, 32], expected [45, 32]",
    ]


def test_a_tokenizer_with_far_fewer_pieces_than_tokens_is_warned_of(small: Any) -> None:
    more = replace(small.module, model=replace(small.module.model, text_in_vocab_size=174, text_out_vocab_size=174))
    (warning,) = small.load(more).warnings
    assert warning.endswith("has 46 pieces, text_out_vocab_size is 174; tokens without a piece will have no text")


def test_another_device_than_there_is_is_refused(small: Any) -> None:
    with pytest.raises(ConfigError, match="device is 'cuda:77'"):
        load_model(small.module, small.files(), device="cuda:77", threads=1, seed=1)


def test_more_slots_than_memory_holds_are_refused_with_their_number(small: Any) -> None:
    many = replace(small.module, batch_size=10**9)
    with pytest.raises(
        ConfigError, match=r"^modules.small: no place on cpu for the model with batch_size = 1000000000: "
    ):
        load_model(many, small.files(), device="cpu", threads=1, seed=1)


@pytest.mark.parametrize(
    ("feedforward", "in_file", "expected"),
    [
        (128, 88, 88),  # 4 d: moshi-server's 11 d / 4
        (128, 84, 84),  # 4 d: the Python package's 21 d / 8
        (128, 85, 85),  # the plain rule
        (128, 80, 88),  # none: the configured width, and so a complaint about the shape
        (48, 32, 32),
        (48, 88, 32),
    ],
)
def test_the_feed_forward_s_width_is_the_file_s_if_some_rule_allows_it(
    small: Any, tmp_path: Path, feedforward: int, in_file: int, expected: int
) -> None:
    save_file({"transformer.layers.0.gating.linear_out.weight": torch.zeros(32, in_file)}, tmp_path / "lm")
    config = replace(small.module.model.transformer, dim_feedforward=feedforward)
    assert hidden_width(config, read_header("lm", tmp_path / "lm")) == expected


def test_a_file_made_by_the_python_rule_loads(small: Any) -> None:
    """A configuration with 4 d means 84 there and 88 in moshi-server; the file decides."""
    transformer = replace(small.module.model.transformer, dim_feedforward=126)
    module = replace(small.module, model=replace(small.module.model, transformer=transformer))
    files = small.files(module)
    four_d = replace(module, model=replace(module.model, transformer=replace(transformer, dim_feedforward=128)))
    assert transformer.hidden == 84
    assert four_d.model.transformer.hidden == 88
    assert tokens(load_model(four_d, files, device="cpu", threads=1, seed=1)) == tokens(small.load(module))


Change = Callable[[ModuleConfig], ModuleConfig]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda module: replace(module, batch_size=9), True),
        (lambda module: replace(module, path="/elsewhere", name="other"), True),
        (lambda module: replace(module, asr_delay_in_tokens=7), False),
        (lambda module: replace(module, temperature=0.25), False),
        (lambda module: replace(module, mimi=replace(module.mimi, context=17)), False),
    ],
)
def test_the_fingerprint_covers_what_decides_the_words(small: Any, change: Change, same: bool) -> None:  # noqa: FBT001
    files = small.files()
    lm, mimi = read_header("lm", files.lm), read_header("mimi", files.mimi)
    before = fingerprint(small.module, lm, mimi, files.tokenizer)
    assert len(before) == 64
    assert (fingerprint(change(small.module), lm, mimi, files.tokenizer) == before) == same


def test_the_fingerprint_knows_the_files_but_not_where_they_lie(small: Any, tmp_path: Path) -> None:
    files = small.files()
    mimi = read_header("mimi", files.mimi)

    def of(path: Path, tokenizer: Path) -> str:
        return fingerprint(small.module, read_header("lm", path), mimi, tokenizer)

    before = of(files.lm, files.tokenizer)
    copied, changed = tmp_path / "copied", tmp_path / "changed"
    copied.write_bytes(files.lm.read_bytes())
    assert of(copied, files.tokenizer) == before
    weights = load_file(files.lm)
    save_file({name: tensor * 2 for name, tensor in weights.items()}, changed)
    assert of(changed, files.tokenizer) != before
    assert of(files.lm, copied) != before


def test_the_log_is_told_in_which_format_caches_are_kept(small: Any) -> None:
    assert small.load().started == {"kv_cache": "float32"}
    assert small.load(kv_cache="int8").started == {"kv_cache": "int8"}
