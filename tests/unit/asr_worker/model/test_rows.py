import pytest
import torch

from asr_worker.model.rows import Run, all_rows, rows_of


@pytest.mark.parametrize(
    ("active", "runs"),
    [
        ("1111", (Run(0, 4, 0),)),
        ("0111", (Run(1, 4, 0),)),
        ("1010", (Run(0, 1, 0), Run(2, 3, 1))),
        ("0110010", (Run(1, 3, 0), Run(5, 6, 2))),
    ],
)
def test_neighbouring_slots_are_one_run(active: str, runs: tuple[Run, ...]) -> None:
    assert rows_of(torch.tensor([letter == "1" for letter in active])).runs == runs


def test_the_rows_and_slots_of_a_run_belong_together() -> None:
    run = Run(5, 8, 2)
    assert (run.slots, run.rows) == (slice(5, 8), slice(2, 5))


def test_all_slots_are_not_copied() -> None:
    kept = torch.arange(4)
    assert rows_of(torch.ones(4, dtype=torch.bool)).take(kept) is kept
    assert all_rows(4).take(kept) is kept


def test_what_is_put_to_some_slots_leaves_the_others_alone() -> None:
    kept = torch.arange(5)
    rows = rows_of(torch.tensor([False, True, False, False, True]))
    assert rows.take(kept).tolist() == [1, 4]
    rows.put(kept, torch.tensor([10, 40]))
    assert kept.tolist() == [0, 10, 2, 3, 40]
    all_rows(5).put(kept, torch.zeros(5, dtype=torch.int64))
    assert not kept.any()
