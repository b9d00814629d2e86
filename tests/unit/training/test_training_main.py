import sys

import pytest

from training.__main__ import main, peak_of


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("--steps", "0", "'0' is no whole number of at least 1"),
        ("--batch", "-3", "'-3' is no whole number of at least 1"),
        ("--minutes", "0", "'0' is no number above 0"),
        ("--minutes", "nan", "'nan' is no number above 0"),
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
