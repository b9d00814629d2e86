import pytest

from asr_gateway.io.listener import listening_socket
from shared.errors import ConfigError


def test_a_port_that_is_taken_is_a_wrong_setting() -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1: Address already in use"):
            listening_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["two..dots", "x" * 64, "no such.host"])
def test_so_is_a_host_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(ConfigError, match=f"host '{host}': "):
        listening_socket(host, 0)
