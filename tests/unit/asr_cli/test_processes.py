import asyncio
import errno
import os
import signal
import sys
from collections.abc import Iterator

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
        supervision=Supervision(gateways=["gateway"], workers=[], gateway_drain_s=10, worker_drain_s=10),
        commands={"gateway": [sys.executable, "-c", "import signal; signal.pause()"]},
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
        supervision=Supervision(gateways=["gateway"], workers=[], gateway_drain_s=10, worker_drain_s=10),
        commands={"gateway": ["never"]},
        places={"gateway": ("127.0.0.1", 9)},
        modules=["asr"],
        title="nothing",
    )
    running = asyncio.create_task(group.run())
    await tried.wait()
    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, 10) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        "asr: gateway cannot be started: Cannot allocate memory",
        "asr: gateway ended with status 71; starting it again in 1 s",
    ]


@pytest.mark.parametrize(
    ("status", "words"), [(3, "ended with status 3"), (-9, "was ended by SIGKILL"), (-37, "was ended by signal 37")]
)
def test_an_end_is_put_into_words(status: int, words: str) -> None:
    assert how_it_ended(status) == words
