"""WebSocket frames that no client library would send: written by hand to a raw socket."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest

MARKER = msgpack.packb({"type": "Marker", "id": 7})
MASK = b"\x00\x00\x00\x00"
GOOD = bytes((0x82, 0x80 | len(MARKER))) + MASK + MARKER

WRONG = {
    "not masked": bytes((0x82, len(MARKER))) + MARKER,
    "a close that is not masked": b"\x88\x00",
    "reserved bits": b"\xf2" + GOOD[1:],
    "an unknown opcode": b"\x83" + GOOD[1:],
    "a continuation of nothing": b"\x80" + GOOD[1:],
    "a long ping": b"\x89\xfe\x00\x7e" + MASK + bytes(126),
    "a ping in pieces": b"\x09\x80" + MASK,
}


@asynccontextmanager
async def raw_client(rig: Any, gateway: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(rig.upgrade())
    await reader.readuntil(b"\xa5Ready")
    yield reader, writer
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("frame", WRONG.values(), ids=WRONG)
async def test_what_is_no_websocket_is_refused_in_its_own_terms(rig: Any, gateway: Any, frame: bytes) -> None:
    async with raw_client(rig, gateway) as (reader, writer):
        for byte in frame:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)

        said = await reader.read()

    error, close = said.split(b"\x88", 1)
    fields = msgpack.unpackb(error[2:])
    assert (fields["type"], fields["code"]) == ("Error", "bad_protocol")
    assert int.from_bytes(close[1:3], "big") == 1002
    assert close[3:].decode() == fields["message"]


async def test_messages_are_counted_without_what_frames_them(rig: Any, gateway: Any) -> None:
    audio = msgpack.packb({"type": "Audio", "pcm": [0.0] * 1920}, use_single_float=True)
    async with gateway.ready_client() as client:
        await client.socket.send_bytes(MARKER)
        await client.socket.send_bytes(audio)
        await client.until("Step")

    async def counted() -> float:
        count: float = await gateway.metric("asr_gateway_received_bytes_total")
        return count

    await rig.eventually(counted)
    assert await counted() == len(MARKER) + len(audio)


async def test_frames_may_be_cut_anywhere(rig: Any, gateway: Any) -> None:
    async with raw_client(rig, gateway) as (reader, writer):
        for byte in GOOD + GOOD:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        writer.write(GOOD + b"\x89\x80" + MASK)

        assert await reader.readuntil(b"\x8a\x00") == b"\x8a\x00"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"Sec-WebSocket-Version: 99", "Unsupported version: 99"),
        (b"Connection: close", "No CONNECTION upgrade hdr"),
        (b"Sec-WebSocket-Key: AAAA", "Handshake error: 'AAAA'"),
        ("Sec-WebSocket-Key: schlüssel".encode(), "Sec-WebSocket-Key must be 16 bytes in base64"),
    ],
)
async def test_what_is_no_handshake_is_told_so(
    rig: Any, gateway: Any, caplog: pytest.LogCaptureFixture, line: bytes, reason: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    header = line.partition(b":")[0]
    writer.write(re.sub(header + rb":[^\r]*", line, rig.upgrade()))
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 400 ")
    fields = json.loads(body)
    assert fields["code"] == "bad_message"
    assert fields["error"].startswith("this is no WebSocket handshake: ")
    assert reason in fields["error"]
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
