from types import SimpleNamespace

import pytest

from asr_worker.model import cold_time
from asr_worker.model.cold_time import MAX_OTHER_BYTES, N_TURNS, cold_ms


class Trial:
    """Notes what is done, and in which order; a turn takes as long as ``turns_s`` says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, turns_s: list[float]) -> None:
        self.done: list[str] = []
        self.n_numbers = 0
        self._turns_s = iter(turns_s)
        self._now_s = 0.0
        monkeypatch.setattr(cold_time, "time", SimpleNamespace(perf_counter=lambda: self._now_s))
        monkeypatch.setattr(cold_time, "torch", SimpleNamespace(ones=self._ones))

    def _ones(self, n_numbers: int) -> SimpleNamespace:
        self.n_numbers = n_numbers
        return SimpleNamespace(sum=lambda: self.done.append("read"))

    def run(self) -> None:
        self.done.append("run")
        self._now_s += next(self._turns_s)


def test_other_memory_is_read_before_each_turn_and_the_least_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(monkeypatch, [0.009, 0.005, 0.006, 0.007, 0.008])
    assert cold_ms(trial.run, 4000) == pytest.approx(5.0)
    assert trial.done == ["read", "run"] * N_TURNS
    assert trial.n_numbers == 1000


def test_what_takes_long_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(monkeypatch, [0.3, 0.25])
    assert cold_ms(trial.run, 4000) == pytest.approx(250.0)


def test_no_more_is_read_than_what_no_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(monkeypatch, [0.001] * N_TURNS)
    cold_ms(trial.run, 1 << 40)
    assert trial.n_numbers == MAX_OTHER_BYTES // 4
