"""The token log: names, shapes, a full queue and a full disk."""

import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from asr_worker.core.tokens import FedTokens
from asr_worker.io.token_log import TokenLog, queue_length


def fed(number: int) -> FedTokens:
    return FedTokens(
        text=np.array([number, 3], np.uint32),
        audio=np.full((2, 4), number, np.uint32),
        mask=np.array([True, number % 2 == 0]),
        generation=np.array([1, 5], np.int64),
    )


class Lost:
    """Counts lost steps and says when the first is lost."""

    def __init__(self) -> None:
        self.n_steps = 0
        self.any = threading.Event()

    def __call__(self, n_steps: int) -> None:
        self.n_steps += n_steps
        self.any.set()


def open_log(folder: Path, lost: Lost, *, period_s: float = 60.0, max_queued: int = 100) -> TokenLog:
    return TokenLog(
        log_dir=folder,
        instance_name="tts-7",
        period_s=period_s,
        started_s=1_700_000_000.25,
        on_lost=lost,
        max_queued=max_queued,
    )


def test_a_file_holds_the_steps_side_by_side_on_the_last_axis(tmp_path: Path) -> None:
    lost = Lost()
    with open_log(tmp_path / "made", lost) as log:
        for number in range(5):
            log.put(fed(number))
    (path,) = (tmp_path / "made").iterdir()
    assert path.name == "tts-7-asr-1700000000-250000.0.safetensors"
    tensors = load_file(path)
    shapes = {name: (tensor.shape, tensor.dtype.name) for name, tensor in tensors.items()}
    assert shapes == {
        "text": ((2, 5), "uint32"),
        "audio": ((2, 4, 5), "uint32"),
        "mask": ((2, 5), "bool"),
        "generation": ((2, 5), "int64"),
    }
    assert tensors["text"][0].tolist() == tensors["audio"][1, 3].tolist() == [0, 1, 2, 3, 4]
    assert tensors["mask"][1].tolist() == [True, False, True, False, True]
    assert (lost.n_steps, tensors["generation"][1, 0]) == (0, 5)


@pytest.mark.parametrize("n_files", [2])
def test_files_are_numbered_and_nothing_is_written_when_nothing_was_stepped(tmp_path: Path, n_files: int) -> None:
    with open_log(tmp_path, Lost(), period_s=0.01) as log:
        for number in range(n_files):
            log.put(fed(number))
            path = tmp_path / f"tts-7-asr-1700000000-250000.{number}.safetensors"
            while not path.exists():
                threading.Event().wait(0.005)
    assert len(list(tmp_path.iterdir())) == n_files


def test_a_period_beyond_all_time_is_only_very_long(tmp_path: Path) -> None:
    with open_log(tmp_path, Lost(), period_s=1e300) as log:
        log.put(fed(1))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_half_full_queue_is_written_before_its_time(tmp_path: Path) -> None:
    with open_log(tmp_path, Lost(), period_s=3600.0, max_queued=4) as log:
        for number in range(3):
            log.put(fed(number))
        while not list(tmp_path.glob("*.safetensors")):
            threading.Event().wait(0.005)


def test_a_full_queue_costs_steps_of_the_log_and_nobody_waits(tmp_path: Path) -> None:
    lost = Lost()
    log = open_log(tmp_path, lost, max_queued=3)  # its thread has not begun
    for number in range(10):
        log.put(fed(number))
    assert lost.n_steps == 7


def test_a_disk_that_takes_nothing_costs_steps_of_the_log_and_leaves_no_half_file(tmp_path: Path) -> None:
    lost = Lost()
    (tmp_path / "file").write_text("in the way")
    with open_log(tmp_path / "file", lost, period_s=0.01) as log:
        log.put(fed(0))
        assert lost.any.wait(10)
        log.put(fed(1))
    assert lost.n_steps == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_queue_is_bounded_in_steps_and_in_bytes() -> None:
    assert [queue_length(8, 8), queue_length(64, 32), queue_length(4096, 64)] == [4096, 4096, 64]
