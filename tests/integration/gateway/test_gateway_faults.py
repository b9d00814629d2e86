"""Faults of the gateway's own while it has a file: they end that one request, and leave their trace."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray
from structlog.testing import capture_logs

from asr_gateway.io import files

FAULT = "inside"


class FaultyDecoder:
    """Has one frame of audio, then fails."""

    async def begin(self) -> None:
        """Find audio."""

    async def chunks(self) -> AsyncIterator[NDArray[np.float32]]:
        yield np.zeros(1920, np.float32)
        raise RuntimeError(FAULT)


def no_decoder(*_: object) -> NoReturn:
    raise RuntimeError(FAULT)


@asynccontextmanager
async def faulty_decoder(*_: object) -> AsyncIterator[FaultyDecoder]:
    yield FaultyDecoder()


@pytest.mark.parametrize(
    ("decoder", "counted"),
    [
        (no_decoder, 'asr_gateway_sessions_refused_total{kind="file",code="internal_error"}'),
        (faulty_decoder, 'asr_gateway_sessions_closed_total{kind="file",code="internal_error"}'),
    ],
    ids=["before it has a slot", "with a slot"],
)
async def test_a_file_that_meets_a_fault_is_told_so_counted_and_logged(
    gateway: Any, monkeypatch: pytest.MonkeyPatch, decoder: Callable[..., Any], counted: str
) -> None:
    monkeypatch.setattr(files, "open_decoder", decoder)
    lines = (counted, 'asr_gateway_post_requests_total{status="500"}')
    before = [await gateway.metric(line) for line in lines]
    address = f"http://127.0.0.1:{gateway.port}/api/asr-streaming"
    with capture_logs() as logs:
        async with aiohttp.request("POST", address, data=b"x", headers={"kyutai-api-key": "right"}) as answer:
            said = (answer.status, await answer.json())

    assert said == (500, {"error": "the gateway has failed; its log says why", "code": "internal_error"})
    assert [await gateway.metric(line) for line in lines] == [count + 1 for count in before]
    (fault,) = [line for line in logs if line["event"] == "unexpected_error_caught"]
    assert (fault["error"], fault["exc_info"]) == ("RuntimeError", True)
    (refused,) = [line for line in logs if line["event"] == "file_refused"]
    assert refused["code"] == "internal_error"
