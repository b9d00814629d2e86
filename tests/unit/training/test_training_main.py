import sys
from pathlib import Path

import pytest

import training
from training.__main__ import config_of, main, peak_of


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


def test_a_run_from_a_checkpoint_learns_slower_unless_it_is_told_otherwise() -> None:
    assert peak_of(None, goes_on=True) < peak_of(None, goes_on=False)
    assert peak_of(2e-3, goes_on=True) == peak_of(2e-3, goes_on=False) == 2e-3


def test_a_run_has_the_sizes_of_the_checkpoint_that_it_starts_from_unless_told_otherwise() -> None:
    ours = Path(training.__file__).parent / "demo.toml"
    assert config_of(None, None) == config_of(None, Path("joint.pt")) == ours
    assert config_of(None, Path("tuned/demo.toml")) == Path("tuned/demo.toml")
    assert config_of(Path("mine.toml"), Path("tuned/demo.toml")) == Path("mine.toml")


def test_a_run_that_is_settled_only_needs_an_encoder_that_has_learnt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    argv = ["training", "train", "--bank", "bank", "--out", str(tmp_path), "--settled"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="--settled needs --start-from"):
        main()
