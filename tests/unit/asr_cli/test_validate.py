import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.constants import HF_HUB_CACHE

from asr_cli.__main__ import main


def validate(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    status = main(["validate", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_a_file_that_is_fit_to_run(sample_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = sample_config.path
    path.write_text(sample_config.base + sample_config.module("french").replace("batch_size = 4", "batch_size = 1"))

    assert validate(path, capsys=capsys) == (
        0,
        f"{path}: fine: asr at /api/asr, slots: 4, french at /api/french, slots: 1\n",
        "",
    )


def test_warnings_do_not_make_it_unfit(sample_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = sample_config.path
    path.write_text(sample_config.changed("batch_size = 4", "batch_size = 4\nbatchsize = 5"))

    status, _, err = validate(path, capsys=capsys)

    assert status == 0
    assert err == f'warning: {path}: [modules.asr] batchsize: unknown key, ignored; did you mean "batch_size"?\n'


def test_one_bad_file_among_good_ones_decides_the_status(sample_config: Any, tmp_path: Path, capsys: Any) -> None:
    good, bad = sample_config.path, tmp_path / "bad.toml"
    good.write_text(sample_config.base)
    bad.write_text(sample_config.changed("batch_size = 4", "batch_size = 0").replace("kv_repeat = 1", "kv_repeat = 2"))

    status, out, err = validate(bad, good, capsys=capsys)

    assert status == 1
    assert out.startswith(f"{good}: fine")
    assert err.splitlines() == [
        f"error: {bad}: [modules.asr] batch_size = 0: must be an integer from 1 to 4096",
        f"error: {bad}: [modules.asr.model.transformer] kv_repeat = 2: only 1 is supported",
    ]


def test_a_service_open_to_everybody_is_not_fit(sample_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = sample_config.path
    path.write_text(sample_config.changed('["first key", "second"]', "[]"))

    status, _, err = validate(path, capsys=capsys)

    assert status == 1
    assert err.startswith(f"error: {path}: no keys: set authorized_ids (or ASR_KEY); ")
    assert "--" not in err  # a flag of a gateway is none of `asr serve`


def test_a_gateway_s_settings_in_the_environment_count(
    sample_config: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sample_config.path
    path.write_text(sample_config.changed('["first key", "second"]', "[]"))

    monkeypatch.setenv("ASR_ALLOW_NO_KEYS", "1")
    assert validate(path, capsys=capsys)[0] == 0

    monkeypatch.setenv("ASR_HOST", "0.0.0.0")
    status, _, err = validate(path, capsys=capsys)
    assert status == 1
    assert err.startswith(f'error: {path}: host "0.0.0.0": without keys only a loopback address')


def test_a_key_in_the_environment_closes_the_door_too(
    sample_config: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sample_config.path
    path.write_text(sample_config.changed('["first key", "second"]', "[]"))

    monkeypatch.setenv("ASR_KEY", "third")
    assert validate(path, capsys=capsys)[0] == 0

    monkeypatch.setenv("ASR_KEY", "sha256:short")
    status, _, err = validate(path, capsys=capsys)
    assert status == 1
    assert err.startswith("error: ASR_KEY: must be")


def test_a_folder_for_uploaded_files_is_looked_for_as_a_gateway_does(
    sample_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, spool_dir = sample_config.path, tmp_path / "spool"
    path.write_text(f'{sample_config.base}\n[gateway]\nspool_dir = "{spool_dir}"\n')
    no_folder = f'error: {path}: spool_dir "{spool_dir}": there is no such folder\n'

    assert validate(path, capsys=capsys) == (1, "", no_folder)
    spool_dir.write_bytes(b"")
    assert validate(path, capsys=capsys) == (1, "", no_folder)
    spool_dir.unlink()
    spool_dir.mkdir()
    assert validate(path, capsys=capsys)[0] == 0
    # To root every folder is open.
    monkeypatch.setattr("os.access", lambda *_: False)
    no_files = f'error: {path}: spool_dir "{spool_dir}": no files can be written there\n'
    assert validate(path, capsys=capsys) == (1, "", no_files)


def test_model_files_are_looked_for_only_when_asked(sample_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = sample_config.path
    path.write_text(sample_config.base)
    (path.parent / "lm.safetensors").write_bytes(b"")

    assert validate(path, capsys=capsys)[0] == 0
    no_file = f"there is no such file; looked for {Path('text.model').absolute()} and {path.parent / 'text.model'}"
    not_fetched = f"not in the hub's cache, {HF_HUB_CACHE}; asr fetch --config FILE brings it"
    status, out, err = validate("--weights", path, capsys=capsys)
    of_the_hub = "hf://somebody/codec/mimi@125.safetensors"
    assert (status, out, err.splitlines()) == (
        1,
        "",
        [
            f'error: {path}: [modules.asr] text_tokenizer_file = "text.model": {no_file}',
            f'error: {path}: [modules.asr] audio_tokenizer_file = "{of_the_hub}": {not_fetched}',
        ],
    )


def test_a_model_file_that_cannot_be_read_is_one_problem_among_others(
    sample_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path, name = sample_config.path, 300 * "a"
    path.write_text(sample_config.changed("lm.safetensors", name))
    status, _, err = validate("--weights", path, capsys=capsys)
    first, second, _ = err.splitlines()
    assert status == 1
    cannot = f"{path.parent / name} cannot be read: File name too long"
    assert first == f'error: {path}: [modules.asr] lm_model_file = "{name}": {cannot}'
    assert "there is no such file" in second


def test_a_full_disk_is_said_in_one_line(sample_config: Any) -> None:
    sample_config.path.write_text(sample_config.base)

    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "asr_cli", "validate", str(sample_config.path)]
        # Buffered, as users have it: what cannot be written is complained about once more at the end.
        environ = {**os.environ, "PYTHONUNBUFFERED": ""}
        ended = subprocess.run(command, env=environ, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    message = "asr: standard output: cannot be written: No space left on device\n"
    assert (ended.returncode, ended.stderr) == (1, message)


def test_a_file_whose_name_is_no_text_is_fit_to_run(sample_config: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = sample_config.path.with_name(os.fsdecode(b"caf\xe9.toml"))
    path.write_text(sample_config.base)

    status, out, err = validate(path, capsys=capsys)

    assert (status, err) == (0, "")
    assert "caf\\xe9.toml: fine: " in out
