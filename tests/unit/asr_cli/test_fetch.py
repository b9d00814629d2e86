from pathlib import Path
from typing import Any

import pytest

from asr_cli.__main__ import main
from asr_cli.fetch import wanted_references
from shared.errors import ConfigError

MODELS = {"lm.safetensors", "text.model", "hf://somebody/codec/mimi@125.safetensors"}


@pytest.fixture
def config(sample_config: Any) -> Path:
    path: Path = sample_config.path
    path.write_text(sample_config.base + sample_config.module("french"))
    return path


def test_a_configuration_names_each_file_once(config: Path) -> None:
    assert wanted_references([], config, "") == dict.fromkeys(MODELS, config)
    assert wanted_references([], None, str(config)) == dict.fromkeys(MODELS, config)


def test_files_named_by_hand_come_without_the_environments_configuration(config: Path) -> None:
    assert wanted_references(["hf://a/b/c"], None, str(config)) == {"hf://a/b/c": Path()}
    assert set(wanted_references(["hf://a/b/c"], config, "")) == {"hf://a/b/c", *MODELS}


def test_nothing_to_fetch_is_wrong_usage() -> None:
    with pytest.raises(ConfigError, match="nothing to fetch: give --config FILE, or files as hf://owner/repo/file"):
        wanted_references([], None, "")


def test_local_files_are_looked_for_and_each_missing_one_is_told(
    sample_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sample_config.path
    path.write_text(sample_config.changed("hf://somebody/codec/mimi@125.safetensors", "mimi.safetensors"))
    (path.parent / "lm.safetensors").write_bytes(b"")

    status = main(["fetch", "--config", str(path), "hf://nobody"])

    said = capsys.readouterr()
    assert status == 1
    assert said.out == f"lm.safetensors: here, at {path.parent}/lm.safetensors\n"
    assert [line.split(":")[1].strip() for line in said.err.splitlines()] == ["hf", "text.model", "mimi.safetensors"]


def test_who_forgets_the_scheme_is_told_how_a_file_of_the_hub_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "somebody/codec/mimi.safetensors"]) == 1
    assert capsys.readouterr().err == (
        "error: somebody/codec/mimi.safetensors: there is no such file here; "
        "one of the hub is named hf://owner/repo/file\n"
    )
