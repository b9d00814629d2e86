"""Gradium's protocol over real sockets; the fake model tells lost or doubled audio by its words."""

import asyncio
import base64
import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr_gateway.audio.resample import Resampler
from asr_gateway.core.g711 import from_mu_law

PATH = "/api/speech/asr"
PATIENCE_S = 15.0


class Client:
    """One WebSocket, message by message."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_json({"type": kind, **fields})

    async def speak(self, data: bytes, n_bytes: int = 3840) -> None:
        for begin in range(0, len(data), n_bytes):
            await self.send("audio", audio=base64.b64encode(data[begin : begin + n_bytes]).decode())

    async def receive(self) -> dict[str, Any]:
        message = await self.socket.receive(timeout=PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        fields: dict[str, Any] = json.loads(message.data)
        return fields

    async def until(self, kind: str) -> list[dict[str, Any]]:
        messages = [await self.receive()]
        while messages[-1]["type"] != kind:
            messages.append(await self.receive())
        return messages

    async def closing(self) -> int | None:
        message = await self.socket.receive(timeout=PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return self.socket.close_code


@asynccontextmanager
async def connected(gateway: Any, path: str = PATH, key: str = "right") -> AsyncIterator[Client]:
    async with gateway.http.ws_connect(gateway.url + path, headers={"x-api-key": key}) as socket:
        yield Client(socket)


@asynccontextmanager
async def ready(gateway: Any, input_format: str = "pcm") -> AsyncIterator[Client]:
    async with connected(gateway) as client:
        await client.send("setup", model_name="default", input_format=input_format, json_config={"language": "en"})
        assert (await client.receive())["type"] == "ready"
        yield client


def words_of(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    lines: list[tuple[Any, ...]] = []
    for message in messages:
        if message["type"] == "text":
            lines.append(("Word", message["text"], round(message["start_s"], 3)))
        elif message["type"] == "end_text":
            lines.append(("EndWord", round(message["stop_s"], 3)))
    return lines


def samples(pcm: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.round(pcm * 32767).astype("<i2")


def resampled(pcm: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    resampler = Resampler(rate)
    return np.concatenate([resampler.feed(pcm), resampler.flush()])


@pytest.mark.parametrize("n_bytes", [1001, 3840, 48_000])
async def test_every_sample_is_heard_and_the_end_closes(rig: Any, gateway: Any, n_bytes: int) -> None:
    pcm = samples(rig.noise(20.4))
    async with ready(gateway) as client:
        await client.speak(pcm.tobytes(), n_bytes)
        await client.send("end_of_stream")
        messages = await client.until("end_of_stream")
        assert await client.closing() == 1000

    expected = rig.expected_words(pcm.astype(np.float32) / np.float32(32768), flush=True)
    assert words_of(messages) == expected
    assert len(expected) > 4
    steps = [message for message in messages if message["type"] == "step"]
    assert [step["step_idx"] for step in steps] == list(range(1, 22))
    assert {len(step["vad"]) for step in steps} == {4}


async def test_telephones_and_other_rates_are_heard(rig: Any, gateway: Any) -> None:
    wide = samples(rig.noise(20))
    narrow = np.random.default_rng(2).integers(0, 256, 12_000, np.uint8).tobytes()
    for input_format, data, pcm in (
        ("pcm_16000", wide.tobytes(), resampled(wide.astype(np.float32) / np.float32(32768), 16_000)),
        ("ulaw_8000", narrow, resampled(from_mu_law(narrow), 8_000)),
    ):
        async with ready(gateway, input_format) as client:
            await client.speak(data, 333)
            await client.send("end_of_stream")
            messages = await client.until("end_of_stream")
        assert words_of(messages) == rig.expected_words(pcm, flush=True)


async def test_ogg_opus_in_pieces_is_heard(rig: Any, gateway: Any) -> None:
    file = io.BytesIO()
    soundfile.write(file, rig.noise(25), 24_000, format="OGG", subtype="OPUS")
    async with ready(gateway, "opus") as client:
        await client.speak(file.getvalue(), 333)
        await client.send("end_of_stream")
        messages = await client.until("end_of_stream")
    assert sum(message["type"] == "step" for message in messages) == 25
    assert words_of(messages)


async def test_a_flush_brings_the_words_before_its_answer_and_the_stream_goes_on(rig: Any, gateway: Any) -> None:
    async with ready(gateway) as client:
        await client.speak(samples(rig.noise(10)).tobytes())
        await client.send("flush", flush_id="1")
        first = await client.until("flushed")
        await client.speak(samples(rig.noise(10)).tobytes())
        await client.send("flush", flush_id="2")
        second = await client.until("flushed")

    assert (first[-1]["flush_id"], second[-1]["flush_id"]) == ("1", "2")
    assert words_of(first)
    assert words_of(second)


async def test_ready_waits_for_the_setup_and_audio_too(gateway: Any) -> None:
    async with connected(gateway) as client:
        with pytest.raises(asyncio.TimeoutError):
            await client.socket.receive(timeout=0.5)
        await client.send("setup", model_name="fake", input_format="pcm")
        ready = await client.receive()
    assert (ready["type"], ready["model_name"], ready["delay_in_frames"]) == ("ready", "fake", 6)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('{"type": "audio", "audio": ""}', "the first message must be setup"),
        ('{"type": "setup", "model_name": "other"}', "allowed: default, fake"),
        ("hello", "one JSON object"),
    ],
)
async def test_who_breaks_the_protocol_is_told_how(gateway: Any, message: str, reason: str) -> None:
    async with connected(gateway) as client:
        await client.socket.send_str(message)
        error = (await client.until("error"))[-1]
        assert await client.closing() == 1008
    assert (error["code"], error["reason"], reason in error["message"]) == (1008, "bad_message", True)


async def test_every_module_has_a_path_of_its_name(gateway: Any) -> None:
    async with connected(gateway, f"{PATH}/fake") as client:
        await client.send("setup", model_name="default", input_format="pcm")
        assert (await client.receive())["model_name"] == "fake"
    assert await gateway.status(f"{PATH}/other") == 404


async def test_a_key_is_needed(gateway: Any) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connected(gateway, key="wrong"):
            pass
    assert refused.value.status == 401


async def test_when_all_slots_are_taken_a_client_is_told_so(rig: Any, gateway: Any) -> None:
    three = gateway.ready_client(), gateway.ready_client(), gateway.ready_client()
    async with three[0], three[1], three[2], ready(gateway), connected(gateway) as client:
        await client.send("setup", model_name="default", input_format="pcm")
        error = (await client.until("error"))[-1]
        assert await client.closing() == 1013
    assert (error["message"], rig.N_SLOTS) == ("no free channels", 4)


async def test_a_session_survives_its_worker(rig: Any) -> None:
    pcm = samples(rig.noise(30.4))
    worker = rig.worker("--fake-slots", "2")
    async with rig.gateway(worker.endpoint) as gateway, ready(gateway) as client:
        await client.speak(pcm[: 20 * 1920].tobytes())
        messages = await client.until("text")
        worker.kill()
        worker.start()
        await client.speak(pcm[20 * 1920 :].tobytes())
        await client.send("end_of_stream")
        messages += await client.until("end_of_stream")
    assert words_of(messages) == rig.expected_words(pcm.astype(np.float32) / np.float32(32768), flush=True)


def masked_text(payload: bytes) -> bytes:
    n_bytes = len(payload)
    length = bytes((0x80 | n_bytes,)) if n_bytes < 126 else b"\xff" + n_bytes.to_bytes(8, "big")
    return b"\x81" + length + bytes(4) + payload


async def test_a_slow_reader_gets_all_that_was_said_before_the_end(rig: Any, gateway: Any) -> None:
    pcm = samples(rig.noise(1_200)).tobytes()
    pieces = [base64.b64encode(pcm[begin : begin + 400_000]).decode() for begin in range(0, len(pcm), 400_000)]
    audio = [{"type": "audio", "audio": piece} for piece in pieces]
    messages = [{"type": "setup"}, *audio, {"type": "end_of_stream"}]
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", gateway.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 12)
    writer.write(rig.upgrade().replace(b"/api/asr-streaming", PATH.encode()))
    await reader.readuntil(b"\r\n\r\n")
    for message in messages:
        writer.write(masked_text(json.dumps(message).encode()))
    received = b""
    async with asyncio.timeout(PATIENCE_S):
        while not received.endswith(b"\x88\x02\x03\xe8") and (piece := await reader.read(4096)):
            received += piece
            await asyncio.sleep(0.05)
    writer.close()
    assert received.count(b'"type":"step"') == 1_200
    assert b'{"type":"end_of_stream"}' in received
