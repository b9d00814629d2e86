import shutil
import sysconfig
from pathlib import Path

import pytest

from asr_cli.doctor import kernel_line


def test_what_the_attention_kernel_lacks_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/gcc" if name == "gcc" else None)
    monkeypatch.setattr(sysconfig, "get_path", lambda _name: str(tmp_path))
    assert kernel_line() == "lacks Python's headers (python3-dev): torch's slower attention runs"
    (tmp_path / "Python.h").touch()
    assert kernel_line() == "can be compiled"
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert kernel_line() == "lacks a C compiler (gcc): torch's slower attention runs"
