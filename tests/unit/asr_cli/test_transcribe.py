"""What ``asr transcribe`` does at its edges: mute services, pipes, names that are no text, many files, many keys."""

import argparse
import array
import asyncio
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import aiohttp
import msgpack
import numpy as np
import pytest
import soundfile
from aiohttp import web

from asr_cli.__main__ import main
from asr_cli.audio_file import AudioFile
from asr_cli.live_client import OnMessage, Service, connection, transcribe_by_post, transcribe_live
from asr_cli.transcribe import DEFAULT_KEY, chosen_service, receive_words
from asr_cli.transcript_output import render_json
from asr_cli.usage import UsageError
from shared.units import SAMPLE_RATE

NO_UTF8 = Path(os.fsdecode(b"caf\xe9.wav"))


def write_audio(path: Path, n_samples: int = 2400) -> Path:
    soundfile.write(path, np.zeros(n_samples, np.float32), 24_000)
    return path


@contextmanager
def mute_service() -> Iterator[Service]:
    """A service that the system accepts connections for, and that never reads one."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        yield Service(url=url, key="right", live_silence_s=0.05, file_silence_s=0.05)


@contextmanager
def through_a_pipe(data: bytes) -> Iterator[Path]:
    """The path of a pipe that holds ``data``, as a shell's ``<(...)`` and /dev/stdin are."""
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(data)
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


async def test_no_session_waits_for_ever_for_its_upgrade() -> None:
    with mute_service() as service, pytest.raises(UsageError, match=r"the service was silent for 0\.05 s"):
        await transcribe_live(iter(()), service, rtf=0, on_message=lambda _: None)


@pytest.mark.parametrize("n_samples", [2400, 10_000_000])
async def test_no_file_waits_for_ever_for_its_answer_nor_to_be_taken(n_samples: int, tmp_path: Path) -> None:
    audio = AudioFile(write_audio(tmp_path / "a.wav", n_samples), keep=True)
    with mute_service() as service, pytest.raises(UsageError, match=r"the service was silent for 0\.05 s"):
        await transcribe_by_post(audio, service)


async def test_a_connection_that_does_not_come_about_is_no_silence() -> None:
    with pytest.raises(UsageError, match="nobody answers within 10 s"):
        async with connection(60.0):
            raise aiohttp.ConnectionTimeoutError


@pytest.mark.parametrize(
    ("scheme", "complaint"),
    [("http", "the answer there is 404, and no WebSocket"), ("https", r"no secure connection to 127.0.0.1:\d+: .*SSL")],
)
async def test_somebody_else_at_the_address_is_told_from_nobody(scheme: str, complaint: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        service = Service(url=f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", key="right")
        with pytest.raises(UsageError, match=complaint):
            await transcribe_live(iter(()), service, rtf=0, on_message=lambda _: None)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """Serve an application on this machine; yields its address."""
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def flooding_service(status: int = 200) -> AsyncIterator[Service]:
    """Somebody who answers a file without an end, and sends a message of 2 MiB to whoever wants to speak live."""

    async def flood(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(status=status)
        await answer.prepare(request)
        with suppress(ConnectionError):
            while True:
                await answer.write(b"[" * (1 << 20))
        return answer

    async def shout(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_bytes(msgpack.packb({"type": "Ready", "text": "x" * (2 << 20)}))
        await socket.receive()
        return socket

    app = web.Application()
    app.router.add_get("/api/asr-streaming", shout)
    app.router.add_post("/api/asr-streaming", flood)
    async with serving(app) as url:
        yield Service(url=url, key="right")


async def test_of_a_message_without_bounds_no_more_is_read_than_one_of_ours_could_hold() -> None:
    async with flooding_service() as service:
        with pytest.raises(UsageError, match="a message of 1048576 bytes or more, as none of ours is"):
            await transcribe_live(iter(()), service, rtf=0, on_message=lambda _: None)


@pytest.mark.parametrize(
    ("status", "complaint"),
    [(200, "more than 67108864 bytes, as none of ours does"), (400, r"a\.wav: the service answered 400: \[+\.\.\.$")],
)
async def test_of_an_answer_without_an_end_no_more_is_read_than_the_words_of_a_file(
    status: int, complaint: str, tmp_path: Path
) -> None:
    audio = AudioFile(write_audio(tmp_path / "a.wav"), keep=True)
    async with flooding_service(status) as service:
        with pytest.raises(UsageError, match=complaint):
            await transcribe_by_post(audio, service)


async def test_what_fails_beside_the_connection_is_not_blamed_on_the_service() -> None:
    with pytest.raises(BrokenPipeError):
        async with connection(60.0):
            raise BrokenPipeError


def test_a_file_whose_name_is_no_text_is_read(tmp_path: Path) -> None:
    audio = AudioFile(write_audio(tmp_path / "a.wav").rename(tmp_path / NO_UTF8))
    assert sum(map(len, audio.pieces())) == 2400


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(NO_UTF8)]) == 1
    assert capsys.readouterr().err == "asr: caf\\xe9.wav: no such file\n"

    document = render_json(NO_UTF8, 2.0, []).encode()
    assert json.loads(document)["file"] == "caf\\xe9.wav"


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/dev/fd").iterdir()}


@pytest.mark.parametrize("keep", [False, True])
def test_a_file_is_not_held_open_until_its_turn(keep: bool, tmp_path: Path) -> None:  # noqa: FBT001
    path = write_audio(tmp_path / "a.wav")
    before = open_descriptors()
    audio_files = [AudioFile(path, keep=keep) for _ in range(3)]
    assert open_descriptors() <= before
    assert [sum(map(len, audio.pieces())) for audio in audio_files] == [2400] * 3


def test_what_the_system_says_while_it_reads_is_said_in_words() -> None:
    with pytest.raises(UsageError, match=r"^/proc/self/mem: cannot be read: Input/output error$"):
        AudioFile(Path("/proc/self/mem"))


def test_a_file_that_has_gone_when_its_turn_comes_is_named(tmp_path: Path) -> None:
    audio = AudioFile(write_audio(tmp_path / "a.wav"), keep=True)
    audio.path.unlink()
    with pytest.raises(UsageError, match=r"a\.wav: no such file"):
        next(audio.pieces())
    with pytest.raises(UsageError, match=r"a\.wav: No such file or directory"):
        audio.body()


@pytest.mark.parametrize("ending", ["wav", "w64", "aiff", "au", "mp3", "ogg"])
def test_audio_that_comes_through_a_pipe_is_read(ending: str, tmp_path: Path) -> None:
    with through_a_pipe(write_audio(tmp_path / f"a.{ending}").read_bytes()) as path:
        assert sum(map(len, AudioFile(path).pieces())) >= 2400


SAMPLES = np.random.default_rng(3).integers(-9_000, 9_000, 2_400, np.int16)


def samples_of(audio: AudioFile) -> list[int]:
    return list((np.concatenate(list(audio.pieces())) * 32_768).round().astype(int))


def wav(
    *,
    rate: int = 24_000,
    channels: int = 1,
    block_align: int | None = None,
    data: bytes = bytes(4_800),
    size: int | None = None,
) -> bytes:
    align = 2 * channels if block_align is None else block_align
    form = struct.pack("<HHIIHH", 1, channels, rate, min(rate * align, 0xFFFF_FFFF), align, 16)
    chunks = (
        b"fmt "
        + struct.pack("<I", len(form))
        + form
        + b"data"
        + struct.pack("<I", len(data) if size is None else size)
        + data
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ({"rate": 1}, "a sample rate of 1 Hz; 2000 to 768000 are allowed"),
        ({"rate": 1_999}, "a sample rate of 1999 Hz; 2000 to 768000 are allowed"),
        ({"rate": 768_001}, "a sample rate of 768001 Hz; 2000 to 768000 are allowed"),
        ({"rate": 0x7FFF_FFFF}, "a sample rate of 2147483647 Hz; 2000 to 768000 are allowed"),
        ({"channels": 255, "data": bytes(5_100)}, "255 channels; 1 to 64 are allowed"),
    ],
)
def test_an_absurd_header_is_refused_with_what_is_allowed(
    header: dict[str, Any],
    complaint: str,
    keep: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(**header))
    with pytest.raises(UsageError, match=f"a.wav: {complaint}"):
        AudioFile(file, keep=keep)
    with through_a_pipe(wav(**header)) as path, pytest.raises(UsageError, match=complaint):
        AudioFile(path, keep=keep)


@pytest.mark.parametrize(
    "header", [{"rate": 768_000, "channels": 64}, {"rate": 768_000, "block_align": 0xFFFF}, {"rate": 2_000}]
)
def test_no_header_says_how_much_is_in_memory(header: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(**header))
    audio = AudioFile(file)
    tracemalloc.start()
    try:
        assert sum(map(len, audio.pieces())) > 0
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("riff_size", [0, 36, 0xFFFF_FFFF])
@pytest.mark.parametrize("data_size", [0, 0x7FFF_F000, 0xFFFF_FFFF])
def test_a_wav_whose_writer_could_not_go_back_is_read_to_its_end(
    riff_size: int, data_size: int, tmp_path: Path
) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, SAMPLES, 24_000)
    data = bytearray(file.read_bytes())
    data[4:8], data[40:44] = struct.pack("<I", riff_size), struct.pack("<I", data_size)
    file.write_bytes(data)
    before = open_descriptors()

    audio = AudioFile(file)
    assert open_descriptors() <= before
    assert (audio.duration_s, samples_of(audio)) == (0.1, SAMPLES.tolist())
    with through_a_pipe(data) as path:
        audio = AudioFile(path)
        assert (audio.duration_s, samples_of(audio), audio.duration_s) == (None, SAMPLES.tolist(), 0.1)
    with through_a_pipe(data) as path:
        audio = AudioFile(path, keep=True)
        assert (audio.duration_s, samples_of(audio)) == (0.1, SAMPLES.tolist())
        audio.body().close()
    assert open_descriptors() <= before


@pytest.mark.parametrize("ending", ["flac", "caf", "rf64", "voc"])
def test_what_cannot_be_read_through_a_pipe_is_refused_with_a_way_out(ending: str, tmp_path: Path) -> None:
    data = write_audio(tmp_path / f"a.{ending}").read_bytes()
    way_out = r"Of what comes through a pipe .* can be read; with --post FLAC and others, too"
    with through_a_pipe(data) as path, pytest.raises(UsageError, match=way_out):
        AudioFile(path)


@pytest.mark.parametrize("ending", ["wav", "flac", "caf"])
def test_what_comes_through_a_pipe_is_posted_from_its_first_byte(ending: str, tmp_path: Path) -> None:
    data = write_audio(tmp_path / f"a.{ending}").read_bytes()
    with through_a_pipe(data) as path:
        audio = AudioFile(path, keep=True)
        assert audio.duration_s == 0.1
        with audio.body() as body:
            assert body.read() == data


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_subtitles_of_several_files_are_not_run_together(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(write_audio(tmp_path / name)) for name in ("a.wav", "b.wav")]
    command = ["transcribe", "--url", "http://127.0.0.1:1", "--format", form]
    assert main([*command, *files]) == 1
    assert f"--format {form} takes one file, or --output-dir DIR" in capsys.readouterr().err
    for fine in (files[:1], ["--output-dir", str(tmp_path), *files]):
        assert main([*command, *fine]) == 1
        assert "nobody answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--post", "--rtf", "2", "a.wav"], "--rtf 2: with --post a file goes as fast as the service takes it"),
        (["-", "a.wav", "-"], "-: given 2 times, but standard input comes only once"),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", *arguments]) == 1
    assert complaint in capsys.readouterr().err


def test_after_ctrl_c_the_prompt_begins_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def interrupted(*_: object, on_message: OnMessage, **__: object) -> None:
        on_message({"type": "Word", "text": "one", "start_time": 0.0})
        raise KeyboardInterrupt

    monkeypatch.setattr("asr_cli.transcribe.transcribe_live", interrupted)
    assert main(["transcribe", str(write_audio(tmp_path / "a.wav"))]) == 130
    assert capsys.readouterr().out == "one\n"


class BlindView:
    """Looks at nothing."""

    def show(self, message: Mapping[str, Any]) -> None:
        """Pass it over."""

    def end(self, elapsed_s: float) -> None:
        """Say nothing."""

    def break_off(self) -> None:
        """Say nothing."""


@pytest.mark.parametrize("keep", [False, True])
async def test_of_what_a_service_says_only_words_are_kept_and_only_for_a_transcript_at_the_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keep: bool,  # noqa: FBT001
) -> None:
    words = [{"type": "Word", "text": "one", "start_time": 0.0}, {"type": "EndWord", "stop_time": 0.4}]

    async def hour(*_: object, on_message: OnMessage, **__: object) -> None:
        for message in ({"type": "Ready"}, *({"type": "Step", "step_idx": i} for i in range(45_000)), *words):
            on_message(message)

    monkeypatch.setattr("asr_cli.transcribe.transcribe_live", hour)
    audio, service = AudioFile(write_audio(tmp_path / "a.wav")), Service(url="", key="right")
    args = argparse.Namespace(post=False, rtf=0.0)
    assert await receive_words(audio, service, args, BlindView(), keep=keep) == words * keep


@asynccontextmanager
async def attentive_service() -> AsyncIterator[Service]:
    """A service that says a word once it hears something, and cuts off who does not answer its pings."""

    async def talk(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(heartbeat=0.2)
        await socket.prepare(request)
        await socket.send_bytes(msgpack.packb({"type": "Ready"}))
        n_heard = 0
        async for packet in socket:
            message = msgpack.unpackb(packet.data)
            n_heard += message["type"] == "Audio"
            if n_heard == 1 and message["type"] == "Audio":
                await socket.send_bytes(msgpack.packb({"type": "Word", "text": "one", "start_time": 0.0}))
            elif message["type"] == "Flush":
                await socket.send_bytes(msgpack.packb({"type": "Flushed", "id": message["id"]}))
        return socket

    app = web.Application()
    app.router.add_get("/api/asr-streaming", talk)
    async with serving(app) as url:
        yield Service(url=url, key="right")


@contextmanager
def paused_pipe(data: bytes) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Both ends of a pipe that holds ``data`` and whose writer has not ended."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as reading, os.fdopen(writer, "wb", buffering=0) as writing:
        writing.write(data)
        # Else a test that waits for the pipe in a C library would never fail.
        last_resort = threading.Timer(15, writing.close)
        last_resort.start()
        try:
            yield reading, writing
        finally:
            last_resort.cancel()


async def test_while_a_pipe_pauses_the_service_is_heard_and_answered() -> None:
    messages: list[str] = []
    has_word = asyncio.Event()

    def take(message: Mapping[str, Any]) -> None:
        messages.append(message["type"])
        if message["type"] == "Word":
            has_word.set()

    data = wav(data=bytes(48_000), size=0xFFFF_FFFF)
    with paused_pipe(data) as (reader, writer):
        pieces = AudioFile(Path(f"/dev/fd/{reader.fileno()}")).pieces()
        async with attentive_service() as service:
            session = asyncio.create_task(transcribe_live(pieces, service, rtf=0, on_message=take))
            await asyncio.wait_for(has_word.wait(), 5)
            # Longer than the service waits for the answer to a ping.
            await asyncio.wait({session}, timeout=0.6)
            assert (messages, session.done()) == (["Ready", "Word"], False)
            writer.close()
            await asyncio.wait_for(session, 5)
    assert messages == ["Ready", "Word", "Flushed"]


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_what_has_come_through_a_pipe_is_sent_though_it_pauses(rate: int) -> None:
    with paused_pipe(wav(rate=rate, data=bytes(rate), size=0xFFFF_FFFF)) as (reader, writer):
        came_s = 0.0
        for piece in AudioFile(Path(f"/dev/fd/{reader.fileno()}")).pieces():
            came_s += len(piece) / SAMPLE_RATE
            if came_s > 0.4:
                break
        assert not writer.closed, "it waited for more"
    assert came_s == pytest.approx(0.45, abs=0.05)


def n_unread(pipe: IO[bytes]) -> int:
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


async def interrupted(process: asyncio.subprocess.Process) -> tuple[int | None, float]:
    """Press Ctrl-C; return the exit status and how long it took."""
    pressed = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        return await asyncio.wait_for(process.wait(), 5), time.monotonic() - pressed
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


async def started(stdin: IO[bytes], *arguments: str) -> asyncio.subprocess.Process:
    """Start the command; return once it has taken all that ``stdin`` holds and waits for more."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asr_cli", "transcribe", *arguments),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    while n_unread(stdin):  # noqa: ASYNC110 - another process takes it
        await asyncio.sleep(0.01)
    return process


@pytest.mark.parametrize("flags", [(), ("--post",)])
async def test_ctrl_c_ends_it_while_no_header_comes(flags: tuple[str, ...]) -> None:
    with paused_pipe(b"RIFF") as (reader, _):
        status, after_s = await interrupted(await started(reader, *flags, "-"))
    assert status == 130
    assert after_s < 2


async def test_while_standard_input_pauses_words_are_printed_and_ctrl_c_ends_it() -> None:
    with paused_pipe(wav(data=bytes(48_000), size=0xFFFF_FFFF)) as (reader, _):
        async with attentive_service() as service:
            process = await started(reader, "--url", service.url, "-")
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readexactly(3), 10) == b"one"
            status, after_s = await interrupted(process)
            assert (status, await process.stdout.read()) == (130, b"\n")
    assert after_s < 2


HASH = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("variable", "key"),
    [
        ("one", "one"),
        ("one,two", "one"),
        (f" {HASH}, two ", "two"),
        (HASH, DEFAULT_KEY),
        ("", DEFAULT_KEY),
    ],
)
def test_of_the_keys_that_a_gateway_takes_the_first_is_used(variable: str, key: str) -> None:
    assert chosen_service(argparse.Namespace(), {"ASR_KEY": variable}).key == key


def test_a_key_that_is_given_is_used_as_it_is() -> None:
    assert chosen_service(argparse.Namespace(key="one,two"), {"ASR_KEY": "three"}).key == "one,two"
