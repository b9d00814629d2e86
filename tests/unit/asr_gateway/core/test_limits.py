from asr_gateway.core.limits import AudioAccount, AudioBounds, ByteBudget
from shared.config import GatewayConfig

BOUNDS = AudioBounds(guaranteed_samples=100, max_samples=1_000)


def test_a_session_may_read_up_to_its_maximum_while_the_budget_lasts() -> None:
    account = AudioAccount(ByteBudget(1 << 20), BOUNDS)

    assert account.hold(999)
    assert account.may_read
    assert not account.hold(1_000)
    assert not account.may_read


def test_only_what_exceeds_the_guaranteed_part_is_charged() -> None:
    budget = ByteBudget(1 << 20)
    account = AudioAccount(budget, BOUNDS)

    account.hold(100)
    assert budget.used_bytes == 0
    account.hold(150)
    assert budget.used_bytes == 200
    account.hold(0)
    assert budget.used_bytes == 0


def test_with_an_exhausted_budget_only_the_guaranteed_part_may_be_held() -> None:
    budget = ByteBudget(400)
    greedy, modest = AudioAccount(budget, BOUNDS), AudioAccount(budget, BOUNDS)

    greedy.hold(200)

    modest.hold(99)
    assert modest.may_read
    modest.hold(100)
    assert not modest.may_read
    greedy.hold(100)
    assert modest.may_read


def test_bounds_come_from_the_configuration_in_samples() -> None:
    bounds = AudioBounds.of(GatewayConfig(min_buffered_audio_s=2.0, max_buffered_audio_s=60.0))

    assert bounds == AudioBounds(guaranteed_samples=48_000, max_samples=1_440_000)
