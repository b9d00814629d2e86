"""`asr transcribe` as a shell runs it: what it reads and writes may be a pipe, a full disk, a name that is no text."""

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import soundfile

Transcribe = Callable[..., Awaitable[tuple[int, str, str]]]

FULL = "asr: standard output: cannot be written: No space left on device\n"


@pytest.fixture
def transcribe(rig: Any, gateway: Any, tmp_path: Path) -> Transcribe:
    """Run the command in the test's folder; return its status and what it wrote."""

    async def run(
        *arguments: str | bytes, stdin: bytes | IO[bytes] = b"", stdout: int = asyncio.subprocess.PIPE
    ) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "asr_cli", "transcribe", "--url", gateway.url, *arguments),
            cwd=tmp_path,
            # Buffered, as users have it: what cannot be written is complained about once more at the end.
            env={**os.environ, "ASR_KEY": f"{rig.KEY},another", "PYTHONUNBUFFERED": ""},
            stdin=asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(stdin if isinstance(stdin, bytes) else None), 30)
        assert process.returncode is not None
        return process.returncode, (out or b"").decode(), err.decode()

    return run


@pytest.fixture
def words(rig: Any, tmp_path: Path) -> str:
    """Write a.wav and a.flac; return what the fake model says to them."""
    pcm = rig.noise(25)
    pcm = (pcm * 32_768).round() / 32_768
    for name in ("a.wav", "a.flac"):
        soundfile.write(tmp_path / name, pcm, 24_000, subtype="PCM_16")
    return " ".join(text for kind, text, *_ in rig.expected_words(pcm, flush=True) if kind == "Word")


@pytest.fixture
def closed_pipe() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.fixture
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_reader_that_has_gone_ends_it_in_silence(form: str, transcribe: Transcribe, closed_pipe: int) -> None:
    assert await transcribe("--format", form, "a.wav", stdout=closed_pipe) == (141, "", "")


@pytest.mark.usefixtures("words")
@pytest.mark.parametrize("form", ["text", "json"])
async def test_a_full_disk_is_said_in_one_line(form: str, transcribe: Transcribe, full_disk: int) -> None:
    assert await transcribe("--format", form, "a.wav", stdout=full_disk) == (1, "", FULL)


async def test_a_full_disk_is_said_even_of_the_last_line(
    transcribe: Transcribe, full_disk: int, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(24_000), 24_000)
    status, _, err = await transcribe("silence.wav", stdout=full_disk)
    assert (status, err) == (1, FULL)


@pytest.mark.parametrize("flags", [[], ["--post"]])
async def test_a_name_that_is_no_text_is_no_obstacle(
    flags: list[str], transcribe: Transcribe, words: str, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").rename(tmp_path / os.fsdecode(b"caf\xe9.wav"))

    assert await transcribe(*flags, b"caf\xe9.wav") == (0, words + "\n", "")
    status, out, err = await transcribe(*flags, "--format", "json", b"caf\xe9.wav")

    assert (status, err) == (0, "")
    document = json.loads(out)
    assert (document["file"], document["text"]) == ("caf\\xe9.wav", words)


@pytest.mark.parametrize(
    "arguments", [("-", "a.wav"), ("--post", "-", "a.wav"), ("--post", "/dev/stdin", "a.flac")], ids=" ".join
)
async def test_a_file_through_standard_input_gives_the_words(
    arguments: tuple[str, ...], transcribe: Transcribe, words: str, tmp_path: Path
) -> None:
    *flags, name = arguments
    assert await transcribe(*flags, stdin=(tmp_path / name).read_bytes()) == (0, words + "\n", "")


async def test_standard_input_that_is_a_file_may_be_of_any_format(
    transcribe: Transcribe, words: str, tmp_path: Path
) -> None:
    with (tmp_path / "a.flac").open("rb") as file:
        assert await transcribe("-", stdin=file) == (0, words + "\n", "")


@pytest.mark.usefixtures("words")
async def test_a_flac_through_standard_input_is_refused_with_a_way_out(transcribe: Transcribe, tmp_path: Path) -> None:
    status, out, err = await transcribe("-", stdin=(tmp_path / "a.flac").read_bytes())
    assert (status, out) == (1, "")
    assert (
        "Of what comes through a pipe WAV, AIFF, AU, Ogg and MP3 can be read; with --post FLAC and others, too" in err
    )
