"""What happens to clients that are silent, idle, slow, or never finish their request; with clocks made fast."""

import asyncio
import re
import socket
from contextlib import suppress
from typing import Any

import aiohttp
import msgpack
import pytest
from structlog.testing import capture_logs


async def _all_free(gateway: Any) -> bool:
    return bool(await gateway.used_slots() == 0)


async def test_a_client_that_is_sent_nothing_gets_pings(rig: Any, shared_worker: Any) -> None:
    async with (
        rig.gateway(shared_worker.endpoint, ping_after_s=0.3) as gateway,
        gateway.ready_client(autoping=False) as client,
    ):
        for _ in range(2):
            assert (await client.socket.receive(timeout=5)).type is aiohttp.WSMsgType.PING


async def test_a_client_that_answers_nothing_is_dropped(rig: Any, shared_worker: Any) -> None:
    limits = {"ping_after_s": 0.2, "silent_client_s": 0.6}
    with capture_logs() as lines:
        async with rig.gateway(shared_worker.endpoint, **limits) as gateway:
            types = await _types_until_dropped(gateway)
            await rig.eventually(lambda: _all_free(gateway))

    pings, rest = types[:-2], types[-2:]
    assert set(pings) == {aiohttp.WSMsgType.PING}
    assert rest == [aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.CLOSE]
    (closed,) = [line for line in lines if line["event"] == "session_closed"]
    assert re.fullmatch(r"nothing was heard from the client for \d\.\d s, at most 0\.6 s may pass", closed["reason"])


async def _types_until_dropped(gateway: Any) -> list[aiohttp.WSMsgType]:
    types: list[aiohttp.WSMsgType] = []
    async with gateway.ready_client(autoping=False) as client:
        while not client.socket.closed and len(types) < 9:
            types.append((await client.socket.receive(timeout=5)).type)
    return types


async def test_pongs_keep_a_client_but_an_idle_one_is_told_to_go(rig: Any, shared_worker: Any) -> None:
    limits = {"ping_after_s": 0.2, "silent_client_s": 0.7, "idle_client_s": 1.5}
    async with rig.gateway(shared_worker.endpoint, **limits) as gateway, gateway.ready_client() as client:
        begun = asyncio.get_running_loop().time()

        assert await client.refusal() == ("idle", "no message for 1.5 s", 1008)

        assert asyncio.get_running_loop().time() - begun > 1.4


async def test_a_client_that_waits_for_its_marker_is_not_idle(rig: Any, shared_worker: Any) -> None:
    limits = {"ping_after_s": 0.2, "silent_client_s": 0.7, "idle_client_s": 0.5}
    async with rig.gateway(shared_worker.endpoint, **limits) as gateway, gateway.ready_client() as client:
        await client.send("Audio", pcm=[0.1])
        await client.send("Marker", id=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.2):
                await client.receive()


async def test_a_client_that_has_sent_all_and_reads_for_long_is_not_silent(rig: Any) -> None:
    worker = rig.worker("--fake-step-ms", "20")
    pcm = rig.noise(120)  # 2.4 s of steps
    async with (
        rig.gateway(worker.endpoint, ping_after_s=0.2, silent_client_s=0.6) as gateway,
        gateway.ready_client() as client,
    ):
        await client.speak(pcm)
        await client.send("Flush")
        messages = await client.until("Flushed")
    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)


@pytest.mark.parametrize("n_samples", [30_000, 100_000])
async def test_a_client_whose_message_takes_long_to_come_is_not_silent(
    rig: Any, shared_worker: Any, n_samples: int
) -> None:
    message = msgpack.packb({"type": "Audio", "pcm": [0] * n_samples})
    limits = {"ping_after_s": 0.2, "silent_client_s": 0.6}
    async with rig.gateway(shared_worker.endpoint, **limits) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(rig.upgrade())
        await reader.readuntil(b"\xa5Ready")
        try:
            writer.write(b"\x82\xff" + len(message).to_bytes(8, "big") + bytes(4))
            for begin in range(0, len(message), n_samples // 15):
                writer.write(message[begin : begin + n_samples // 15])
                await asyncio.sleep(0.1)  # a slow line
            await asyncio.wait_for(reader.readuntil(b"Step"), 5)
        finally:
            writer.close()


async def test_a_client_that_does_not_read_is_cut_off_and_hurts_nobody(rig: Any, shared_worker: Any) -> None:
    limits = {"slow_consumer_s": 0.5, "output_buffer_bytes": 4_096}
    with capture_logs() as lines:
        await _cut_off_beside_a_neighbour(rig, shared_worker, limits)

    (closed,) = [line for line in lines if line["event"] == "session_closed" and line["code"] == "slow_consumer"]
    assert re.fullmatch(
        r"the client left \d{4,} bytes of output unread, more than 4096 may wait for at most 0\.5 s", closed["reason"]
    )


async def _cut_off_beside_a_neighbour(rig: Any, shared_worker: Any, limits: dict[str, float]) -> None:
    async with rig.gateway(shared_worker.endpoint, **limits) as gateway, gateway.ready_client() as neighbour:
        reader, writer = await _slow_reader(gateway.port, rig)
        flood = bytes.fromhex("82fe") + b"\x07\x80" + b"\0\0\0\0" + _message_of(1_920)
        closed = asyncio.create_task(_write_until_closed(writer, flood))
        pcm = rig.noise(30)
        for start in range(0, len(pcm), 1_920):
            await neighbour.speak(pcm[start : start + 1_920])
            await asyncio.sleep(0.01)
        await neighbour.send("Flush")

        assert rig.words_of(await neighbour.until("Flushed")) == rig.expected_words(pcm, flush=True)
        await asyncio.wait_for(closed, 30)
        await rig.eventually(lambda: _closed_as_slow(gateway))
        with pytest.raises(ConnectionError):  # not the end of a stream that was closed
            await reader.read()


CLOSE = bytes.fromhex("8880") + bytes(4)
SING = bytes.fromhex("828b") + bytes(4) + b"\x81\xa4type\xa4Sing"


@pytest.mark.parametrize("ending", [CLOSE, SING + CLOSE], ids=["by the client", "by the gateway"])
async def test_a_client_that_does_not_read_cannot_keep_a_connection_that_is_closed(
    rig: Any, shared_worker: Any, ending: bytes
) -> None:
    # More than the kernel takes in, and less than is too much to be listened to.
    async with rig.gateway(shared_worker.endpoint, output_buffer_bytes=16 << 20) as gateway:
        _, writer = await _slow_reader(gateway.port, rig)
        writer.write((bytes.fromhex("89fd") + bytes(4 + 125)) * 16_000)  # pings, each of which is answered
        writer.write(ending)
        await writer.drain()

        await asyncio.wait_for(_wait_for_reset(writer), 10)


async def _wait_for_reset(writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while True:
            writer.write(b"\0")
            await writer.drain()
            await asyncio.sleep(0.05)


async def _closed_as_slow(gateway: Any) -> bool:
    return bool(await gateway.metric('asr_gateway_sessions_closed_total{kind="live",code="slow_consumer"}') == 1)


async def _slow_reader(port: int, rig: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that opens a session and then never reads again; its kernel takes in as little as it can."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1_024)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=1_024)
    writer.write(rig.upgrade())
    await reader.readuntil(b"\xa5Ready")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    return reader, writer


def _message_of(n_bytes: int) -> bytes:
    """An Audio message of exactly so many bytes, all small integers: as many samples as possible."""
    head = b"\x82\xa4type\xa5Audio\xa3pcm\xdc"
    n_samples = n_bytes - len(head) - 2
    return head + n_samples.to_bytes(2, "big") + b"\x00" * n_samples


async def _write_until_closed(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        while True:
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        return


async def test_reading_stops_while_a_client_is_ahead_of_the_model(rig: Any) -> None:
    worker = rig.worker("--fake-step-ms", "10")
    limits = {"min_buffered_audio_s": 1.0, "max_buffered_audio_s": 1.0, "silent_client_s": 1.0, "idle_client_s": 1.0}
    pcm = rig.noise(150)
    async with rig.gateway(worker.endpoint, **limits) as gateway, gateway.ready_client() as client:

        async def speak() -> None:
            await client.speak(pcm)
            await client.send("Flush")

        speaking = asyncio.create_task(speak())
        messages = await client.until("Flushed")
        await speaking

    buffered = [message["buffered_pcm"] for message in messages if message["type"] == "Step"]
    # One second in the gateway, two at the worker, and the message that came last.
    assert 48_000 < max(buffered) <= 24_000 + 48_000 + 2 * 1_920
    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)


@pytest.mark.parametrize("request_line", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: 1"])
async def test_headers_have_a_deadline(rig: Any, request_line: bytes) -> None:
    async with rig.gateway(header_timeout_s=0.3) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(request_line)

        assert await asyncio.wait_for(_rest(reader), 5) == b""
        writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_a_request_in_time_is_not_cut_by_the_deadline_of_its_headers(rig: Any, shared_worker: Any) -> None:
    async with rig.gateway(shared_worker.endpoint, header_timeout_s=0.3) as gateway:
        async with gateway.ready_client() as client:
            await asyncio.sleep(0.6)
            await client.send("Flush")
            await client.until("Flushed")
        await rig.eventually(lambda: _all_free(gateway))


async def test_oversize_headers_are_refused(rig: Any) -> None:
    headers = {"X-Big": "x" * 20_000}
    async with rig.gateway() as gateway, gateway.http.get(gateway.url + "/healthz", headers=headers) as response:
        assert response.status == 400


async def test_a_client_that_vanishes_before_its_upgrade_is_no_error(
    rig: Any, gateway: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", gateway.port)) as vanishing:
            vanishing.sendall(rig.upgrade())
        await asyncio.sleep(0.02)

    async with gateway.ready_client() as client:
        await client.speak(rig.noise(3))
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
