"""Whole audio files of any format, decoded in a child process and streamed back as 24 kHz mono.

Knows the child's messages and its deadline, not its codecs. Whatever the child does (crash, hang, lie, eat memory),
the gateway sees an error for this one file. At most a few chunks are in memory: the child waits while nobody reads.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import ceil
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from asr_gateway.audio import file_child
from asr_gateway.audio.file_child import ChildLimits
from shared.errors import AsrError, BadAudioError, DecodeTimeoutError, MessageTooLargeError
from shared.units import SAMPLE_RATE

DEFAULT_MEMORY_BYTES: Final = 512 << 20
"""Address space of a child, libraries included; it really uses about 40 MB."""

_PASSED_ON: Final = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT")
"""All that the child gets of the gateway's environment, which may hold secrets."""
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_READ_LIMIT_BYTES: Final = file_child.MAX_PAYLOAD_BYTES


class DecoderUnavailableError(AsrError):
    """The machine cannot start another process."""

    code = "decoder_unavailable"
    retry = True
    http_status = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """How much one file may cost."""

    max_audio_s: float
    decode_timeout_s: float
    """Time that the child may take, not counting the time it waits for its output to be read."""
    max_memory_bytes: int = DEFAULT_MEMORY_BYTES


class FileDecoder:
    """One file being decoded; made by ``open_decoder``."""

    def __init__(self, stdout: asyncio.StreamReader, process: Process, limits: FileLimits) -> None:
        self._stdout = stdout
        self._process = process
        self._limits = limits
        self._spent_s = 0.0

    async def begin(self) -> None:
        """Wait until the header of the file is understood; to be called once, first.

        Raises:
            BadAudioError: this is no audio, or none that is allowed.
            MessageTooLargeError: the file says that it is too long.
            DecodeTimeoutError: the child took too long.
        """
        kind, _ = await self._next_message()
        if kind != file_child.BEGUN:
            what = f"began with a message of kind {kind!r}"
            raise _broken(what)

    async def chunks(self) -> AsyncIterator[NDArray[np.float32]]:
        """Yield the audio in chunks ``[n]``, n <= 16384, 24 kHz mono.

        Raises:
            As ``begin``.
        """
        # The child keeps this limit itself; a child that was taken over by its input does not.
        left = ceil((self._limits.max_audio_s + 1) * SAMPLE_RATE)
        while True:
            kind, payload = await self._next_message()
            if kind == file_child.DONE:
                return
            left -= len(payload) // 4
            if kind != file_child.PCM or len(payload) % 4 or left < 0:
                what = f"sent a wrong message of kind {kind!r} amid the audio"
                raise _broken(what)
            yield np.frombuffer(payload, "<f4")

    async def _next_message(self) -> tuple[bytes, bytes]:
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            async with asyncio.timeout(self._limits.decode_timeout_s - self._spent_s):
                kind, n_bytes = file_child.HEADER.unpack(await self._stdout.readexactly(file_child.HEADER.size))
                if n_bytes > file_child.MAX_PAYLOAD_BYTES:
                    what = f"announced {n_bytes} bytes"
                    raise _broken(what)
                payload = await self._stdout.readexactly(n_bytes)
        except TimeoutError:
            raise self._too_slow() from None
        except asyncio.IncompleteReadError:
            raise await self._died() from None
        self._spent_s += clock() - begun
        if kind == file_child.ERROR:
            raise _error_of(payload)
        return kind, payload

    def _too_slow(self) -> DecodeTimeoutError:
        return DecodeTimeoutError(f"decoding the file takes longer than {self._limits.decode_timeout_s:g} s")

    async def _died(self) -> BadAudioError:
        status = await self._process.wait()
        return self._too_slow() if status == -signal.SIGXCPU else _broken(f"ended with status {status}")


def _broken(what: str) -> BadAudioError:
    return BadAudioError(f"the file cannot be decoded (the decoder {what})")


def _error_of(payload: bytes) -> BadAudioError | MessageTooLargeError:
    try:
        error: dict[str, Any] = json.loads(payload)
        code, message = error["code"], str(error["message"])
    except (ValueError, TypeError, KeyError):
        return _broken("failed without a reason")
    return MessageTooLargeError(message) if code == file_child.TOO_LONG else BadAudioError(message)


@asynccontextmanager
async def open_decoder(file: IO[bytes], limits: FileLimits) -> AsyncIterator[FileDecoder]:
    """Start a child that decodes ``file`` from its beginning; it is gone when the context is left.

    Args:
        file: a real file, open for reading and flushed.
        limits: what it may cost.

    Raises:
        DecoderUnavailableError: there are too many processes or open files.
    """
    file.seek(0)
    try:
        process = await _start(file, limits)
    except OSError as error:
        message = f"the decoder cannot be started ({error.strerror}); please try again later"
        raise DecoderUnavailableError(message) from error
    try:
        assert process.stdout is not None
        yield FileDecoder(process.stdout, process, limits)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        # Not wait(): it hangs while the pipe is full and its reading paused.
        await process.communicate()


async def _start(file: IO[bytes], limits: FileLimits) -> Process:
    child_limits = ChildLimits(
        max_audio_s=limits.max_audio_s,
        max_cpu_s=ceil(limits.decode_timeout_s),
        max_memory_bytes=limits.max_memory_bytes,
    )
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # files in the working directory are none of its modules
        "-m",
        file_child.__name__,
        file_child.limits_argument(child_limits),
        stdin=file,
        stdout=PIPE,
        stderr=DEVNULL,
        limit=_READ_LIMIT_BYTES,
        start_new_session=True,  # a Ctrl-C is for the gateway: it lets the files finish
        env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ONE_THREAD,
    )
