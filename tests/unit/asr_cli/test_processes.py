import asyncio
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from asr_cli.processes import ProcessGroup
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
        host="127.0.0.1",
        port=9,
        title="nothing",
    )
    running = asyncio.create_task(group.run())
    await asyncio.sleep(0)

    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, 10) == 0
    assert capsys.readouterr().out.count("stopping") == 1
