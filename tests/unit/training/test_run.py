from pathlib import Path
from typing import Any

import pytest

import training
from shared.errors import ConfigError
from training.run import Run, train

ASKED: dict[str, Any] = {
    "bank": Path("bank"),
    "out": Path("out"),
    "minutes": 60.0,
    "steps": None,
    "config": None,
    "start_from": None,
    "settled": False,
    "foreign_weight": None,
    "open_starts": False,
    "more_wrong_codes": 0.0,
    "peak": None,
    "device": "cpu",
    "batch": 8,
    "seed": 1,
}


def asked(**changes: Any) -> Run:
    return Run(**{**ASKED, **changes})


def test_a_run_from_a_checkpoint_learns_slower_unless_it_is_told_otherwise() -> None:
    tuned = Path("tuned/demo.toml")
    assert asked(start_from=tuned).schedule.peak < asked().schedule.peak
    assert asked(start_from=tuned, peak=2e-3).schedule.peak == asked(peak=2e-3).schedule.peak == 2e-3


def test_a_run_has_the_sizes_of_the_checkpoint_that_it_starts_from_unless_told_otherwise() -> None:
    ours, tuned = Path(training.__file__).parent / "demo.toml", Path("tuned/demo.toml")
    assert asked().sizes == asked(start_from=Path("joint.pt")).sizes == ours
    assert asked(start_from=tuned).sizes == tuned
    assert asked(start_from=tuned, config=Path("mine.toml")).sizes == Path("mine.toml")


def test_a_run_that_is_settled_only_keeps_its_codes_for_long() -> None:
    settled = asked(start_from=Path("tuned/demo.toml"), settled=True).settings
    assert settled.schedule.settled_only
    assert settled.replay_batches > 10 * asked().settings.replay_batches


@pytest.mark.parametrize("start_from", [None, Path("joint.pt")])
def test_a_run_that_is_settled_only_needs_an_encoder_that_has_learnt(start_from: Path | None, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--settled needs --start-from"):
        train(asked(start_from=start_from, settled=True, out=tmp_path / "out"), print)
    assert not (tmp_path / "out").exists()
