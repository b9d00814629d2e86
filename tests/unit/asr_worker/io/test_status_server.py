"""The metrics port: what it answers, and that it cannot be made to wait for ever."""

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import NoReturn

import pytest

from asr_worker.io.status_server import MAX_CONNECTIONS, Status, StatusServer
from shared.errors import ConfigError


class Worker:
    is_ready = True
    is_stuck = False


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def server(worker: Worker) -> Iterator[StatusServer]:
    status = Status(
        metrics=lambda: b"asr_worker_steps_total 3\n",
        is_ready=lambda: worker.is_ready,
        is_stuck=lambda: worker.is_stuck,
    )
    with StatusServer(status, host="127.0.0.1", port=0) as server:
        yield server


def get(server: StatusServer, path: str) -> tuple[int, bytes, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=10) as answer:
            return answer.status, answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers["Content-Type"]


def test_metrics_are_prometheus_text(server: StatusServer) -> None:
    assert get(server, "/metrics?x=1") == (200, b"asr_worker_steps_total 3\n", "text/plain; version=0.0.4")


def test_no_answer_names_what_runs_here(server: StatusServer) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        assert answer.headers["Server"] == "asr-worker"


def test_no_resolver_is_asked_what_the_address_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(socket, "gethostbyaddr", lambda host: asked.append(host) or (host, [], [host]))
    status = Status(metrics=lambda: b"", is_ready=lambda: True, is_stuck=lambda: False)
    with StatusServer(status, host="127.0.0.1", port=0) as server:
        assert get(server, "/readyz")[0] == 200
    assert asked == []


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_an_ipv6_address_can_be_listened_on() -> None:
    status = Status(metrics=lambda: b"", is_ready=lambda: True, is_stuck=lambda: False)
    with (
        StatusServer(status, host="::1", port=0) as server,
        socket.create_connection(("::1", server.port), timeout=10) as connection,
    ):
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.0 200"


def test_a_host_that_can_be_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on two\.\.dots:0: "):
        StatusServer(
            Status(metrics=lambda: b"", is_ready=lambda: True, is_stuck=lambda: False), host="two..dots", port=0
        )


def test_healthz_and_readyz_are_told_apart(server: StatusServer, worker: Worker) -> None:
    assert [get(server, path)[0] for path in ("/healthz", "/readyz", "/else")] == [200, 200, 404]
    worker.is_ready = False
    assert [get(server, path)[0] for path in ("/healthz", "/readyz")] == [200, 503]


def test_a_worker_that_hangs_for_good_is_not_healthy(server: StatusServer, worker: Worker) -> None:
    worker.is_stuck = True
    assert get(server, "/healthz")[:2] == (503, b"stuck\n")


def test_more_connections_than_places_are_closed_unanswered(server: StatusServer) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(MAX_CONNECTIONS + 1)]
    try:
        assert held[-1].recv(10) == b""
        held[0].sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert held[0].recv(12) == b"HTTP/1.0 200"
    finally:
        for connection in held:
            connection.close()


def test_connections_that_no_thread_can_be_started_for_are_closed_and_keep_no_place(
    server: StatusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> NoReturn:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", no_thread)
        for _ in range(MAX_CONNECTIONS + 1):
            with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
                assert connection.recv(1) == b""
    assert get(server, "/healthz")[0] == 200


def test_who_sends_a_byte_now_and_then_keeps_no_place(worker: Worker) -> None:
    status = Status(metrics=bytes, is_ready=lambda: worker.is_ready, is_stuck=lambda: worker.is_stuck)
    with (
        StatusServer(status, host="127.0.0.1", port=0, timeout_s=0.2) as server,
        socket.create_connection(("127.0.0.1", server.port)) as slow,
    ):
        slow.settimeout(0.05)
        assert any(was_ended(slow) for _ in range(200))


def was_ended(connection: socket.socket) -> bool:
    """Send one more byte and return whether the other end has had enough."""
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_a_taken_port_is_named(server: StatusServer) -> None:
    status = Status(metrics=bytes, is_ready=bool, is_stuck=bool)
    with pytest.raises(ConfigError, match=f"--metrics-port {server.port}: cannot listen on 127.0.0.1"):
        StatusServer(status, host="127.0.0.1", port=server.port)
