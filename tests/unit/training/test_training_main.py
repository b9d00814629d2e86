import sys
from pathlib import Path

import pytest

from training.__main__ import main


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("--steps", "0", "'0' is no whole number of at least 1"),
        ("--batch", "-3", "'-3' is no whole number of at least 1"),
        ("--minutes", "0", "'0' is no number above 0"),
        ("--minutes", "nan", "'nan' is no number above 0"),
        ("--foreign-weight", "0", "'0' is no number above 0"),
        ("--more-wrong-codes", "1.5", "'1.5' is no number from 0 to 1"),
        ("--more-wrong-codes", "few", "'few' is no number from 0 to 1"),
    ],
)
def test_a_run_of_nothing_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flag: str,
    value: str,
    complaint: str,
) -> None:
    argv = ["training", "train", "--bank", "bank", "--out", "out", f"{flag}={value}"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        main()
    assert f"argument {flag}: {complaint}" in capsys.readouterr().err


def test_a_run_that_is_settled_only_needs_an_encoder_that_has_learnt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argv = ["training", "train", "--bank", "bank", "--out", str(tmp_path), "--settled"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="--settled needs --start-from"):
        main()


@pytest.mark.parametrize("value", ["nan", "inf", "much"])
def test_a_bias_that_is_no_number_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["training", "bias", "demo.toml", value, "--bank", "bank", "--out", "out"])
    with pytest.raises(SystemExit):
        main()
    assert f"argument bias: '{value}' is no finite number" in capsys.readouterr().err
