"""Step times and the moments to tell of them."""

from asr_worker.core.load import WINDOW_STEPS, LoadSchedule, StepTimes


def test_percentiles_are_of_the_last_steps_only() -> None:
    times = StepTimes()
    assert (times.percentile_s(50), times.deadline_s()) == (0.0, 0.6)
    for number in range(WINDOW_STEPS + 100):
        times.add(9.0 if number < 100 else (number - 100) / 1000)
    assert (times.percentile_s(50), times.percentile_s(99), times.percentile_s(100)) == (0.128, 0.253, 0.255)
    assert times.deadline_s() == 6 * 0.253


def test_loads_go_out_after_steps_but_not_all_and_without_steps_less_often() -> None:
    schedule = LoadSchedule()
    moments = [(0.0, False), (0.04, True), (0.05, True), (0.09, True), (0.2, False), (0.25, False), (0.3, True)]
    assert [schedule.is_due(now, has_stepped=stepped) for now, stepped in moments] == [
        True, False, True, False, False, True, True,
    ]  # fmt: skip
    assert schedule.next_deadline() == 0.5
