"""One live session as a client: audio out, messages in, over the WebSocket protocol of docs/protocol.md."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgpack
import numpy as np
from numpy.typing import NDArray

from asr_cli.audio_file import AudioFile
from asr_cli.messages import excerpt, from_answer, from_packet
from asr_cli.output import shown
from asr_cli.reading import read_ahead
from asr_cli.usage import UsageError
from shared.units import FRAME_SAMPLES, SAMPLE_RATE

DEFAULT_PATH: Final = "/api/asr-streaming"
SILENT_SERVICE_S: Final = 60.0
"""A service pings every 10 s: one that is silent for longer than this has gone."""
SILENT_FILE_S: Final = 7500.0
"""While a file is sent, waits for its turn and is transcribed, not a byte comes back: by default two hours of speech at
real time, a minute for the body and 100 s of waiting."""
CONNECT_S: Final = 10.0
CLOSE_S: Final = 5.0
FLUSH_ID: Final = 1
MAX_MESSAGE_BYTES: Final = 1 << 20
"""Of one message of a live session: whoever answers at an address need not be a service. Ours are far shorter."""
MAX_ANSWER_BYTES: Final = 64 << 20
"""Of the answer to a file: two hours of speech have about two megabytes of words."""
MAX_REASON_BYTES: Final = 4096
"""What is read of an answer that refuses a file."""
REFUSED: Final = {401: "the service does not know this key", 503: "the service is being stopped; try again"}
"""What the answers to an upgrade mean that are no upgrade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service and the right to use it."""

    url: str
    key: str
    """One of its authorized_ids."""
    live_silence_s: float = SILENT_SERVICE_S
    """How long a live session waits for a sign of life, from the upgrade on."""
    file_silence_s: float = SILENT_FILE_S
    """How long a file that is sent whole waits for its answer."""

    @property
    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return {"kyutai-api-key": self.key}


OnMessage = Callable[[Mapping[str, Any]], None]


def session_url(url: str, scheme: str) -> str:
    """Return the address of a route: ``url`` with ``scheme`` (``ws``, ``http``), and the usual path if it has none.

    Raises:
        UsageError: no host in it, or a scheme that is none of http, https, ws, wss.
    """
    message = f"{url!r} is no address of a service: expected something like http://127.0.0.1:8080"
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:  # brackets that do not match, a port that is no number
        raise UsageError(message) from error
    if parts.scheme not in {"http", "https", "ws", "wss"} or not parts.hostname or port == 0:
        raise UsageError(message)
    secure = "s" if parts.scheme in {"https", "wss"} else ""
    path = parts.path if parts.path.strip("/") else DEFAULT_PATH
    return urlunsplit((scheme + secure, parts.netloc, path, parts.query, ""))


def encode_audio(pcm: NDArray[np.float32]) -> bytes:
    """Return an ``Audio`` message: what msgpack makes of a list of float32, but without making the list."""
    items = np.empty(len(pcm), dtype=[("tag", "u1"), ("value", ">f4")])
    items["tag"] = 0xCA
    items["value"] = pcm
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(2)
    for word in ("type", "Audio", "pcm"):
        packer.pack(word)
    packer.pack_array_header(len(pcm))
    return bytes(packer.bytes()) + items.tobytes()


async def transcribe_live(
    pieces: Iterator[NDArray[np.float32]], service: Service, *, rtf: float, on_message: OnMessage
) -> None:
    """Send the audio and hand every message to ``on_message`` until the service has said the last word.

    Args:
        pieces: 24 kHz mono float32, cut anywhere; taken in a thread, as a pipe may pause.
        service: whom to ask.
        rtf: how many seconds of audio to send in one second; 0 for as fast as the service takes it.
        on_message: called for each message as it comes.

    Raises:
        UsageError: no service there, the key refused, no free slot, or an error that the service reported.
    """
    async with (
        connection(service.live_silence_s) as http,
        http.ws_connect(
            session_url(service.url, "ws"),
            headers=service.headers,
            timeout=aiohttp.ClientWSTimeout(ws_receive=service.live_silence_s, ws_close=CLOSE_S),
            max_msg_size=MAX_MESSAGE_BYTES,
        ) as socket,
        aclosing(read_ahead(pieces)) as ahead,
    ):
        await receive_until("Ready", socket, on_message)
        tasks = [
            asyncio.create_task(send(ahead, socket, rtf)),
            asyncio.create_task(receive_until("Flushed", socket, on_message)),
        ]
        try:
            # A file that turns out to be broken must not leave the receiver waiting, nor the other way round.
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def send(pieces: AsyncIterator[NDArray[np.float32]], socket: aiohttp.ClientWebSocketResponse, rtf: float) -> None:
    """Send the audio frame by frame, then ask for what is still inside the model."""
    loop = asyncio.get_running_loop()
    started_at, sent_samples = loop.time(), 0
    # A connection that closes is explained by what the receiver reads last.
    with suppress(ConnectionError, aiohttp.ClientError):
        async for piece in pieces:
            for start in range(0, len(piece), FRAME_SAMPLES):
                frame = piece[start : start + FRAME_SAMPLES]
                await socket.send_bytes(encode_audio(frame))
                sent_samples += len(frame)
                if rtf > 0:
                    await asyncio.sleep(started_at + sent_samples / SAMPLE_RATE / rtf - loop.time())
        await socket.send_bytes(msgpack.packb({"type": "Flush", "id": FLUSH_ID}))


async def receive_until(wanted: str, socket: aiohttp.ClientWebSocketResponse, on_message: OnMessage) -> None:
    """Hand on messages until one of type ``wanted`` came.

    Raises:
        UsageError: the service reported an error or closed the connection first.
    """
    while True:
        packet = await socket.receive()
        if packet.type is aiohttp.WSMsgType.ERROR and socket.close_code == aiohttp.WSCloseCode.MESSAGE_TOO_BIG:
            complaint = (
                f"the service sent a message of {MAX_MESSAGE_BYTES} bytes or more, as none of ours is; see --url"
            )
            raise UsageError(complaint)
        if packet.type is not aiohttp.WSMsgType.BINARY:
            complaint = f"the service closed the connection (code {socket.close_code}) before {wanted}"
            raise UsageError(complaint)
        message = from_packet(packet.data)
        on_message(message)
        if message["type"] == wanted:
            return


async def transcribe_by_post(audio: AudioFile, service: Service) -> list[Mapping[str, Any]]:
    """Send the file as it is and return the messages that came back.

    Raises:
        UsageError: no service there, or it refused the file; says why.
    """
    url = session_url(service.url, "http")
    # Of it all: aiohttp counts no silence before the body has been taken.
    timeout = aiohttp.ClientTimeout(total=service.file_silence_s, sock_connect=CONNECT_S)
    with audio.body() as body:
        async with (
            connection(service.file_silence_s) as http,
            http.post(url, data=body, headers=service.headers, timeout=timeout) as answer,
        ):
            if answer.ok:
                return from_answer(await whole(answer))
            reason = excerpt((await beginning(answer, MAX_REASON_BYTES)).decode(errors="replace")) or answer.reason
            message = f"{shown(audio.path)}: the service answered {answer.status}: {reason}"
            raise UsageError(message)


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer.

    Raises:
        UsageError: it is longer than the words of any file.
    """
    body = await beginning(answer, MAX_ANSWER_BYTES + 1)
    if len(body) > MAX_ANSWER_BYTES:
        message = f"the service answers with more than {MAX_ANSWER_BYTES} bytes, as none of ours does; see --url"
        raise UsageError(message)
    return body


async def beginning(answer: aiohttp.ClientResponse, n_bytes: int) -> bytes:
    """Return the first ``n_bytes`` of the body of an answer, or all there is."""
    try:
        return await answer.content.readexactly(n_bytes)
    except asyncio.IncompleteReadError as all_there_is:
        return all_there_is.partial


@asynccontextmanager
async def connection(silence_s: float) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield an HTTP client whose failures are UsageErrors, as is a service that sends nothing for ``silence_s``.

    Other errors pass through, those of the system too: whoever has the client may also write words to a full disk.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http:
            yield http
    except aiohttp.WSServerHandshakeError as error:
        unexpected = f"the answer there is {error.status}, and no WebSocket: not the address of a service? see --url"
        raise UsageError(REFUSED.get(error.status, unexpected)) from error
    except aiohttp.ConnectionTimeoutError as error:
        message = f"nobody answers within {CONNECT_S:g} s; is the service running? see --url"
        raise UsageError(message) from error
    except TimeoutError as error:
        message = f"the service was silent for {silence_s:g} s"
        raise UsageError(message) from error
    except aiohttp.ClientSSLError as error:
        message = f"no secure connection to {error.host}:{error.port}: {error.strerror}; see --url"
        raise UsageError(message) from error
    except aiohttp.ClientConnectorError as error:
        message = f"nobody answers at {error.host}:{error.port} ({error.strerror}); is the service running? see --url"
        raise UsageError(message) from error
    except (aiohttp.ClientError, UnicodeError) as error:
        message = f"no service can be reached there: {error}"
        raise UsageError(message) from error
