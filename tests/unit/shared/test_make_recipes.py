"""What `make` would give to the shell: every target, with each of its variables, is whole."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TARGETS = {
    target: re.findall(r"\b([A-Z_]{3,})=", help_text)
    for file in (ROOT / "Makefile", *ROOT.glob("*/*.mk"))
    for target, help_text in re.findall(r"^([a-z-]+):.*?## (.*)$", file.read_text(), re.MULTILINE)
}


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def script(target: str, *variables: str) -> str:
    command = ["make", "-n", target, "PYTHON=python3", *variables]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@needs_make
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_target_gives_the_shell_a_whole_script(target: str) -> None:
    for variables in ([], [f"{name}=1" for name in TARGETS[target]]):
        made = script(target, *variables)
        checked = subprocess.run(["bash", "-n"], input=made, capture_output=True, text=True, check=False)
        assert not checked.stderr, (target, variables)


@needs_make
def test_what_was_trained_survives_a_clean() -> None:
    removed = {word for line in script("clean").splitlines() if line.startswith("rm ") for word in line.split()[2:]}
    assert "build/compiled" in removed
    assert not {"build", "build/demo"} & removed


@needs_make
@pytest.mark.parametrize("target", ["demo-model", "demo-eval"])
def test_kokoro_gets_the_packages_that_it_needs(target: str) -> None:
    assert "pip install -q onnx onnxruntime" in script(target, "KOKORO=folder")
    assert "onnx" not in script(target)


@needs_make
def test_voices_that_come_too_late_for_a_bank_are_said_to() -> None:
    assert "was spoken before: PEOPLE, KOKORO and MANIFEST add nothing" in script("demo-model", "KOKORO=folder")
    assert "was spoken before" not in script("demo-model")


def test_the_targets_that_the_readme_is_about_are_among_them() -> None:
    assert {"serve", "test", "demo-model", "demo-eval", "bench"} <= set(TARGETS)
