import asyncio
import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr_cli.processes import ProcessGroup, how_it_ended
from asr_cli.supervision import Supervision


@pytest.fixture
def hangup() -> Iterator[None]:
    """Hanging up is ignored from the start, as under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup")
async def test_a_service_that_was_started_to_outlive_its_terminal_does(capsys: pytest.CaptureFixture[str]) -> None:
    group = ProcessGroup(
        supervision=Supervision(gateways=["gateway"], workers={}, gateway_drain_s=10, worker_drain_s=10),
        commands={"gateway": [sys.executable, "-c", "import signal; signal.pause()"]},
        environment=os.environ,
        places={"gateway": ("127.0.0.1", 9)},
        modules=["asr"],
        title="nothing",
    )
    running = asyncio.create_task(group.run())
    await asyncio.sleep(0)

    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, 10) == 0
    assert capsys.readouterr().out.count("stopping") == 1


async def test_a_child_that_the_system_cannot_start_now_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = asyncio.Event()

    async def no_process(*_: object, **__: object) -> None:
        tried.set()
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    group = ProcessGroup(
        supervision=Supervision(gateways=["gateway"], workers={}, gateway_drain_s=10, worker_drain_s=10),
        commands={"gateway": ["never"]},
        environment=os.environ,
        places={"gateway": ("127.0.0.1", 9)},
        modules=["asr"],
        title="nothing",
        warnings=["mind the gap"],
    )
    running = asyncio.create_task(group.run())
    await tried.wait()
    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, 10) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "asr: mind the gap",
        "asr: gateway cannot be started: Cannot allocate memory",
        "asr: gateway ended with status 71; starting it again in 1 s",
    ]


async def test_a_child_gets_the_environment_that_is_meant_for_it(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    code = f"import os, signal; open({str(told)!r}, 'w').write(' '.join(os.environ)); signal.pause()"
    group = ProcessGroup(
        supervision=Supervision(gateways=["gateway"], workers={}, gateway_drain_s=10, worker_drain_s=10),
        commands={"gateway": [sys.executable, "-c", code]},
        environment={"PATH": os.environ["PATH"], "MEANT": "1"},
        places={"gateway": ("127.0.0.1", 9)},
        modules=["asr"],
        title="nothing",
    )
    running = asyncio.create_task(group.run())

    assert {"PATH", "MEANT"} <= {*(await asyncio.to_thread(told.read_text)).split()} <= {"PATH", "MEANT", "LC_CTYPE"}

    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 10) == 0


@pytest.mark.parametrize(
    ("status", "words"), [(3, "ended with status 3"), (-9, "was ended by SIGKILL"), (-37, "was ended by signal 37")]
)
def test_an_end_is_put_into_words(status: int, words: str) -> None:
    assert how_it_ended(status) == words
