import pytest

from asr_worker.io.link import heartbeat_timeout_ms


@pytest.mark.parametrize(
    ("gateway_timeout_s", "timeout_ms"), [(0.5, 3_000), (2.0, 3_000), (5.0, 7_500), (30.0, 45_000), (1e12, 2**31 - 1)]
)
def test_the_connection_is_kept_for_longer_than_its_gateway_may_be_silent(
    gateway_timeout_s: float, timeout_ms: int
) -> None:
    assert heartbeat_timeout_ms(gateway_timeout_s) == timeout_ms
