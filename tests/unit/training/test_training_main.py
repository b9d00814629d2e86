import sys

import pytest

from training.__main__ import main


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
