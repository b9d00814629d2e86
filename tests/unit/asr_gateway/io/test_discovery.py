import socket
import threading
from pathlib import Path
from typing import NoReturn

import pytest
from structlog.testing import capture_logs

from asr_gateway.io.discovery import Discovery, Fixed, Listed, Named, discovery_source, worker_source
from shared.errors import ConfigError
from shared.log_events import DISCOVERY_FAILED


@pytest.mark.parametrize(
    ("endpoint", "source"),
    [
        ("tcp://10.0.0.1:5555", Fixed("tcp://10.0.0.1:5555")),
        ("tcp://[::1]:5555", Fixed("tcp://[::1]:5555")),
        ("ipc:///run/asr/worker", Fixed("ipc:///run/asr/worker")),
        ("tcp://worker-0.local:5555", Named("worker-0.local", 5_555, every_address=False)),
    ],
)
def test_a_worker_is_an_endpoint_or_a_name_to_look_up(endpoint: str, source: object) -> None:
    assert worker_source(endpoint) == source


@pytest.mark.parametrize("url", ["dns://workers.local:5555", "file:///etc/asr/workers"])
def test_the_log_names_a_source_as_the_operator_did(url: str) -> None:
    assert str(discovery_source(url)) == url


def test_a_worker_by_name_is_called_so_too() -> None:
    assert str(worker_source("tcp://worker-0.local:5555")) == "tcp://worker-0.local:5555"


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "10.0.0.1:5555",
        "tcp://10.0.0.1",
        "tcp://:5",
        "tcp://a:0",
        "tcp://a:70000",
        "tcp://a:b",
        "udp://a:1",
        "ipc://",
    ],
)
def test_anything_else_is_no_worker(endpoint: str) -> None:
    with pytest.raises(ConfigError, match=r"must be tcp://HOST:PORT or ipc://PATH"):
        worker_source(endpoint)


def test_workers_are_discovered_by_name_or_in_a_file() -> None:
    assert discovery_source("dns://workers:5555") == Named("workers", 5_555, every_address=True)
    assert discovery_source("file:///etc/workers") == Listed(Path("/etc/workers"))


@pytest.mark.parametrize("url", ["", "workers:5555", "dns://workers", "dns://workers:0", "file://", "http://x"])
def test_anything_else_is_no_place_to_look(url: str) -> None:
    with pytest.raises(ConfigError, match=r"must be dns://NAME:PORT or file://PATH"):
        discovery_source(url)


async def test_a_name_is_looked_up_in_numbers() -> None:
    assert await Named("127.0.0.1", 5, every_address=True).endpoints() == {"tcp://127.0.0.1:5"}
    (endpoint,) = await Named("localhost", 5, every_address=False).endpoints()
    assert endpoint in ("tcp://127.0.0.1:5", "tcp://[::1]:5")


class Roster:
    """Who discovery tells; some of its workers are alive."""

    def __init__(self, *alive: str) -> None:
        self.workers: list[str] = []
        self.alive = set(alive)

    def add_worker(self, endpoint: str) -> None:
        if endpoint not in self.workers:
            self.workers.append(endpoint)

    def remove_worker(self, endpoint: str) -> bool:
        if endpoint in self.alive:
            return False
        self.workers.remove(endpoint)
        return True


async def test_a_file_adds_at_once_and_removes_only_what_has_fallen_silent(tmp_path: Path) -> None:
    file = tmp_path / "workers"
    roster = Roster("tcp://127.0.0.1:1")
    discovery = Discovery([Listed(file)], roster)
    seen = []
    for text in (
        "tcp://127.0.0.1:1\n\n# tcp://127.0.0.1:9\ntcp://[::1]:2 # the second\n",
        "garbage\n",
        "tcp://127.0.0.1:3\n",
        "",
    ):
        file.write_text(text)
        await discovery.look_up()
        seen.append(sorted(roster.workers))
    roster.alive.clear()
    await discovery.look_up()
    seen.append(sorted(roster.workers))

    assert seen == [
        ["tcp://127.0.0.1:1", "tcp://[::1]:2"],
        ["tcp://127.0.0.1:1", "tcp://[::1]:2"],
        ["tcp://127.0.0.1:1", "tcp://127.0.0.1:3"],
        ["tcp://127.0.0.1:1"],
        [],
    ]


async def test_a_source_that_fails_takes_nothing_away_and_stops_no_other(tmp_path: Path) -> None:
    roster = Roster()
    file = tmp_path / "workers"
    file.write_text("tcp://127.0.0.1:1\n")
    discovery = Discovery([Listed(file), Fixed("tcp://127.0.0.1:2")], roster)
    await discovery.look_up()
    file.unlink()
    await discovery.look_up()

    assert roster.workers == ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]


async def test_sources_that_no_thread_can_be_started_for_are_logged_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> NoReturn:
        message = "can't start new thread"
        raise RuntimeError(message)

    file = tmp_path / "workers"
    file.write_text("tcp://127.0.0.1:1\n")
    named = Named("127.0.0.1", 3, every_address=True)
    roster = Roster()
    discovery = Discovery([Listed(file), Fixed("tcp://127.0.0.1:2"), named], roster)
    with monkeypatch.context() as limited, capture_logs() as logs:
        limited.setattr(threading.Thread, "start", no_thread)
        await discovery.look_up()
        await discovery.look_up()
    assert roster.workers == ["tcp://127.0.0.1:2"]
    assert [(entry["event"], entry["source"]) for entry in logs] == [
        (DISCOVERY_FAILED, f"file://{file}"),
        (DISCOVERY_FAILED, "dns://127.0.0.1:3"),
    ]
    assert "no thread can be started" in logs[0]["reason"]

    await discovery.look_up()
    assert sorted(roster.workers) == ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "tcp://127.0.0.1:3"]


async def test_a_name_that_no_resolver_could_know_is_no_end_of_the_others() -> None:
    roster = Roster()
    nameless = [Named("two..dots", 1, every_address=True), Named("x" * 64, 1, every_address=False)]
    await Discovery([*nameless, Fixed("tcp://127.0.0.1:2")], roster).look_up()

    assert roster.workers == ["tcp://127.0.0.1:2"]


async def test_a_host_without_an_address_takes_nothing_from_the_other_lines_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "workers"
    file.write_text("tcp://127.0.0.1:1\ntcp://two..dots:2\ntcp://127.0.0.1:3\n")
    roster = Roster()
    await Discovery([Listed(file)], roster).look_up()

    assert roster.workers == ["tcp://127.0.0.1:1", "tcp://127.0.0.1:3"]


async def test_a_host_that_has_lost_its_address_keeps_its_worker_while_its_file_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nameless(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    file = tmp_path / "workers"
    file.write_text("tcp://localhost:5\n")
    roster = Roster()
    discovery = Discovery([Listed(file)], roster)
    await discovery.look_up()
    (found,) = roster.workers
    monkeypatch.setattr(socket, "getaddrinfo", nameless)
    await discovery.look_up()
    assert roster.workers == [found]

    file.write_text("")
    await discovery.look_up()
    assert roster.workers == []
