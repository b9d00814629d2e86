"""The load generator's WebSocket against a server of a few lines."""

import asyncio
import contextlib

import pytest

from bench.websocket import BINARY, PING, connect, masked

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def unmasked(opcode: int, payload: bytes, *, is_final: bool = True) -> bytes:
    n_bytes = len(payload)
    length = bytes((n_bytes,)) if n_bytes < 126 else b"\x7e" + n_bytes.to_bytes(2, "big")
    return bytes((0x80 * is_final | opcode,)) + length + payload


async def talk(answer: bytes, *, piece_bytes: int) -> tuple[list[bytes], list[str], bytes]:
    """Have a server send ``answer`` in pieces; return messages heard, reasons for the end, and what the client sent."""
    heard: list[bytes] = []
    ends: list[str] = []
    over, is_served = asyncio.Event(), asyncio.Event()
    sent = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for first in range(0, len(answer), piece_bytes):
            writer.write(answer[first : first + piece_bytes])
            await writer.drain()
            await asyncio.sleep(0)
        sent.extend(await reader.read())
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        is_served.set()

    def end(reason: str) -> None:
        ends.append(reason)
        over.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        port = server.sockets[0].getsockname()[1]
        try:
            socket = await connect(f"ws://127.0.0.1:{port}/path", {}, lambda data, _: heard.append(data), end)
            await socket.send(masked(BINARY, b"hello"))
            await over.wait()
            socket.close()
        finally:
            await is_served.wait()
    return heard, ends, bytes(sent)


@pytest.mark.parametrize("piece_bytes", [1, 7, 10_000])
def test_messages_are_heard_whole_however_they_are_cut(piece_bytes: int) -> None:
    long = bytes(range(256)) * 2
    frames = unmasked(BINARY, b"one") + unmasked(BINARY, long)
    frames += unmasked(BINARY, b"two ", is_final=False) + unmasked(0, b"halves")
    heard, ends, _ = asyncio.run(talk(ACCEPTED + frames + unmasked(8, b"\x03\xf3bye"), piece_bytes=piece_bytes))
    assert heard == [b"one", long, b"two halves"]
    assert ends == ["the server closed with 1011"]


def test_a_ping_is_answered_and_no_message() -> None:
    answer = ACCEPTED + unmasked(PING, b"?") + unmasked(8, b"\x03\xe8")
    heard, _, sent = asyncio.run(talk(answer, piece_bytes=10_000))
    assert heard == []
    assert sent[:2] == b"\x8a\x81"
    assert sent[6] ^ sent[2] == ord("?")


def test_a_refused_upgrade_says_what_the_server_answered() -> None:
    with pytest.raises(ConnectionError, match="401 Unauthorized"):
        asyncio.run(talk(b"HTTP/1.1 401 Unauthorized\r\n\r\n", piece_bytes=5))
