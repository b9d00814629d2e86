import pytest

from asr_gateway.core.origins import check_origin
from shared.errors import UnauthorizedError


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "[::1]:8080",
        "192.168.0.7:8080",
        "localhost:8080",
        "localhost",
        "LocalHost.:80",
        "asr.localhost:8080",
    ],
)
def test_a_page_of_this_machine_may_connect(host: str) -> None:
    check_origin(f"http://{host}", host)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "evil.example", ""])
def test_what_is_no_page_may_connect(host: str) -> None:
    check_origin(None, host)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:9090", "null", "", "http://127.0.0.1:8080.evil.example"]
)
def test_another_hosts_page_may_not(origin: str) -> None:
    with pytest.raises(UnauthorizedError, match="only pages of this host"):
        check_origin(origin, "127.0.0.1:8080")


@pytest.mark.parametrize(
    "host", ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost", "[::1", ""]
)
def test_a_page_may_not_under_a_name_that_somebody_else_gives(host: str) -> None:
    with pytest.raises(UnauthorizedError, match="only pages under an IP address or localhost"):
        check_origin(f"http://{host}", host)
