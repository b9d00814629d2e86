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


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_target_gives_the_shell_a_whole_script(target: str) -> None:
    for variables in ([], [f"{name}=1" for name in TARGETS[target]]):
        made = subprocess.run(
            ["make", "-n", target, "PYTHON=python3", *variables], cwd=ROOT, capture_output=True, text=True, check=True
        )
        checked = subprocess.run(["bash", "-n"], input=made.stdout, capture_output=True, text=True, check=False)
        assert not checked.stderr, (target, variables)


def test_the_targets_that_the_readme_is_about_are_among_them() -> None:
    assert {"serve", "test", "demo-model", "demo-eval", "bench"} <= set(TARGETS)
