import pytest

from asr_worker.config import read_settings
from shared.errors import ConfigError


def bind(endpoint: str) -> str:
    return read_settings(["--model", "fake", "--bind", endpoint], {}).bind


@pytest.mark.parametrize("port", ["0", "*", "9", "5555", "9999", "10000", "59999", "60000", "65499", "65529", "65535"])
def test_a_port_is_any_that_there_is_or_a_free_one(port: str) -> None:
    for host in ("127.0.0.1", "[::1]", "*", "eth0"):
        assert bind(f"tcp://{host}:{port}") == f"tcp://{host}:{port}"


@pytest.mark.parametrize("port", ["65536", "65540", "65600", "66000", "70000", "99999", "100000", "-1", "5x", "", "٣"])
def test_what_is_no_port_is_refused_and_not_cut_to_one(port: str) -> None:
    endpoint = f"tcp://127.0.0.1:{port}"
    with pytest.raises(ConfigError) as caught:
        bind(endpoint)
    assert caught.value.problems == (
        f"--bind {endpoint}: must be tcp://HOST:PORT, PORT from 0 to 65535, or ipc://PATH",
    )


def test_a_path_may_hold_what_no_port_may() -> None:
    assert bind("ipc:///run/asr:5x") == "ipc:///run/asr:5x"
