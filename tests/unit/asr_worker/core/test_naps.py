import pytest

from asr_worker.core.naps import LONGEST_NAP_S, MARGIN_S, Naps


def naps_after(*steps_s: float) -> Naps:
    naps = Naps()
    for step_s in steps_s:
        naps.note(step_s)
    return naps


def test_a_long_step_is_spent_in_naps_and_the_last_one_ends_before_it_does() -> None:
    naps, elapsed_s, taking_in_s = naps_after(0.030), 0.0, 0.000_5
    lengths_s = []
    while (nap_s := naps.next_s(elapsed_s=elapsed_s, taking_in_s=taking_in_s)) is not None:
        lengths_s.append(nap_s)
        elapsed_s += nap_s + taking_in_s
    assert lengths_s[:6] == [LONGEST_NAP_S] * 6
    assert elapsed_s == pytest.approx(0.030 - MARGIN_S)


def test_the_quickest_of_the_last_steps_counts() -> None:
    naps = naps_after(0.030, 0.003, 0.030)
    assert naps.next_s(elapsed_s=0.0, taking_in_s=0.0) == pytest.approx(0.002)
    for _ in range(8):
        naps.note(0.030)
    assert naps.next_s(elapsed_s=0.0, taking_in_s=0.0) == LONGEST_NAP_S


def test_where_taking_in_takes_long_results_do_not_wait_for_it() -> None:
    assert naps_after(0.006).next_s(elapsed_s=0.001, taking_in_s=0.004) is None


@pytest.mark.parametrize("elapsed_s", [0.005, 0.1])
def test_there_is_no_nap_at_the_end_of_a_step_or_behind_it(elapsed_s: float) -> None:
    assert naps_after(0.006).next_s(elapsed_s=elapsed_s, taking_in_s=0.0) is None


def test_nobody_naps_in_the_first_step() -> None:
    assert Naps().next_s(elapsed_s=0.0, taking_in_s=0.0) is None
