import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_gateway.core.credit import Credit


def test_a_full_window_is_available_at_first() -> None:
    assert Credit(25).available == 25


def test_what_is_spent_is_gone_until_granted() -> None:
    credit = Credit(3)
    credit.spend(3)
    assert credit.available == 0
    credit.grant(2)
    assert credit.available == 2


def test_spending_more_than_is_available_is_refused_and_changes_nothing() -> None:
    credit = Credit(3)
    with pytest.raises(ValueError, match="4 frames sent with credit for 3"):
        credit.spend(4)
    assert credit.available == 3


def test_a_grant_beyond_the_window_is_refused_and_changes_nothing() -> None:
    credit = Credit(3)
    credit.spend(1)
    with pytest.raises(ValueError, match="2 frames granted beyond the window of 3"):
        credit.grant(2)
    assert credit.available == 2


def test_a_window_needs_at_least_one_frame() -> None:
    with pytest.raises(ValueError, match="at least 1 frame, not 0"):
        Credit(0)


@given(st.integers(1, 50), st.lists(st.integers(0, 60)))
def test_credit_and_frames_at_the_receiver_add_up_to_the_window(window: int, wishes: list[int]) -> None:
    credit, at_receiver = Credit(window), 0
    for wish in wishes:
        sent = min(wish, credit.available)
        credit.spend(sent)
        at_receiver += sent
        consumed = at_receiver // 2
        credit.grant(consumed)
        at_receiver -= consumed
        assert credit.available + at_receiver == window
