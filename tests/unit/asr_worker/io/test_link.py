import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from asr_worker.io.link import Link, check_free, heartbeat_timeout_ms
from shared.errors import ConfigError


@pytest.mark.parametrize(
    ("gateway_timeout_s", "timeout_ms"), [(0.5, 3_000), (2.0, 3_000), (5.0, 7_500), (30.0, 45_000), (1e12, 2**31 - 1)]
)
def test_the_connection_is_kept_for_longer_than_its_gateway_may_be_silent(
    gateway_timeout_s: float, timeout_ms: int
) -> None:
    assert heartbeat_timeout_ms(gateway_timeout_s) == timeout_ms


def bind(endpoint: str) -> None:
    with Link(gateway_timeout_s=5.0) as link:
        link.bind(endpoint)


# Before what takes long, and once more when it is over.
@pytest.mark.parametrize("look", [check_free, bind])
class TestAPathThatIsTaken:
    def test_what_is_no_socket_is_left_alone(self, look: Callable[[str], None], tmp_path: Path) -> None:
        notes = tmp_path / "notes"
        notes.write_text("precious")
        link = tmp_path / "link"
        link.symlink_to(notes)
        for path in (notes, link, tmp_path):
            with pytest.raises(ConfigError, match=f"cannot listen on ipc://{path}: {path} is no socket; allowed are"):
                look(f"ipc://{path}")
        assert (notes.read_text(), link.readlink()) == ("precious", notes)

    def test_a_socket_in_use_stays_with_whoever_has_it(self, look: Callable[[str], None], tmp_path: Path) -> None:
        with Link(gateway_timeout_s=5.0) as link:
            endpoint = link.bind(f"ipc://{tmp_path}/socket")
            before = (tmp_path / "socket").stat()
            with pytest.raises(ConfigError, match="Address already in use"):
                look(endpoint)
            assert (tmp_path / "socket").stat() == before

    def test_a_socket_in_use_for_something_else_stays_too(self, look: Callable[[str], None], tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.bind(str(tmp_path / "socket"))
            with pytest.raises(ConfigError, match="Protocol wrong type for socket"):
                look(f"ipc://{tmp_path}/socket")

    def test_a_socket_that_nobody_listens_on_is_taken_over(self, look: Callable[[str], None], tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left_over:
            left_over.bind(str(tmp_path / "socket"))
        look(f"ipc://{tmp_path}/socket")


@pytest.mark.parametrize("endpoint", ["ipc://*", "ipc://@asr-unit-test"])
def test_names_that_are_no_path_are_left_to_zeromq(endpoint: str) -> None:
    check_free(endpoint)
    bind(endpoint)
