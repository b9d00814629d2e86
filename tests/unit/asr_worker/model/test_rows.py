import pytest
import torch

from asr_worker.model.rows import Rows, Run, all_rows, device_rows, rows_at


@pytest.mark.parametrize(
    ("slots", "runs"),
    [
        ([0, 1, 2, 3], (Run(0, 4, 0),)),
        ([1, 2, 3], (Run(1, 4, 0),)),
        ([0, 2], (Run(0, 1, 0), Run(2, 3, 1))),
        ([1, 2, 5], (Run(1, 3, 0), Run(5, 6, 2))),
    ],
)
def test_neighbouring_slots_are_one_run(slots: list[int], runs: tuple[Run, ...]) -> None:
    assert rows_at(slots).runs == runs


def test_the_rows_and_slots_of_a_run_belong_together() -> None:
    run = Run(5, 8, 2)
    assert (run.slots, run.rows) == (slice(5, 8), slice(2, 5))


def test_the_first_slots_are_not_copied() -> None:
    kept = torch.arange(4)
    for rows in (rows_at(range(3)), all_rows(3), device_rows(3, None)):
        taken = rows.take(kept)
        assert taken.data_ptr() == kept.data_ptr()
        assert taken.tolist() == [0, 1, 2]


@pytest.mark.parametrize("rows", [rows_at([1, 4]), device_rows(2, torch.tensor([1, 4]))])
def test_what_is_put_to_some_slots_leaves_the_others_alone(rows: Rows) -> None:
    kept = torch.arange(5)
    assert rows.take(kept).tolist() == [1, 4]
    rows.put(kept, torch.tensor([10, 40]))
    assert kept.tolist() == [0, 10, 2, 3, 40]
    all_rows(3).put(kept, torch.zeros(3, dtype=torch.int64))
    assert kept.tolist() == [0, 0, 0, 3, 40]
