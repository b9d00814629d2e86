"""Requests that are refused, each with its status, its code and the reason."""

import gzip
import io
from typing import Any

import aiohttp
import numpy as np
import pytest
import soundfile


@pytest.mark.parametrize(("headers", "query"), [({}, ""), ({"kyutai-api-key": "wrong"}, ""), ({}, "?auth_id=right")])
async def test_without_a_key_in_the_header_nothing_is_done(
    service: Any, files: Any, headers: dict[str, str], query: str
) -> None:
    status, body, _ = await service.post(files.audio(1, "WAV"), headers, query)
    assert (status, body["code"]) == (401, "unauthorized")


HEAD = b"POST /api/asr-streaming HTTP/1.1\r\nHost: x\r\n"
RIGHT = b"kyutai-api-key: right\r\n"
EXPECT = b"Expect: 100-continue\r\n"


async def test_a_client_that_asks_first_is_refused_without_its_body(service: Any) -> None:
    assert (await service.talk(HEAD, EXPECT, b"Content-Length: 9\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
    before = await service.refused()
    too_long = await service.talk(HEAD, RIGHT, EXPECT, b"Content-Length: 4194305\r\n\r\n")
    assert too_long.startswith(b"HTTP/1.1 413 ")
    assert await service.refused() - before == {"too_large": 1}


async def test_a_client_that_asks_first_is_told_to_go_on(service: Any) -> None:
    answer = await service.talk(HEAD, RIGHT, EXPECT, b"Content-Length: 9\r\n\r\n")
    assert answer == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_stalled_body_is_refused(service: Any) -> None:
    answer = await service.talk(HEAD, RIGHT, b"Content-Length: 9\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("body", [b"hello", b"RIFF\0\0\0\0WAVE", b"OggS", b"\xff\xfb\x90" + bytes(range(256)) * 20])
async def test_what_is_no_audio_is_refused(service: Any, body: bytes) -> None:
    status, error, _ = await service.post(body)
    assert (status, error["code"]) == (400, "bad_audio")
    assert "no audio file that can be read" in error["error"]
    assert "does not exist" not in error["error"]
    assert "; WAV, FLAC, Ogg and MP3 can" in error["error"]


async def test_an_empty_body_is_called_so(service: Any) -> None:
    status, error, _ = await service.post(b"")
    said = {"error": "the audio file is empty: no byte of it came", "code": "bad_audio"}
    assert (status, error) == (400, said)


async def test_another_method_is_refused_as_everything_is(service: Any) -> None:
    answer = await service.talk(b"PUT /api/asr-streaming HTTP/1.1\r\nHost: x\r\n", RIGHT, b"Content-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD, POST\r\n" in answer
    assert answer.endswith(b'{"error": "PUT is not for this path: GET, HEAD, POST", "code": "wrong_method"}')


async def test_a_file_for_a_path_that_takes_none_is_told_where_files_go(service: Any) -> None:
    answer = await service.talk(b"POST /api/asr_streaming HTTP/1.1\r\nHost: x\r\n", RIGHT, b"Content-Length: 0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"GET, HEAD; files are posted to /api/asr-streaming, /v1/audio/transcriptions" in answer


async def test_a_file_that_was_cut_off_is_refused_with_the_place(service: Any, files: Any) -> None:
    status, error, _ = await service.post(files.audio(2, "FLAC")[:20_000])
    assert (status, error["code"]) == (400, "bad_audio")
    assert "damaged after 0." in error["error"]


async def test_too_many_seconds_are_refused(service: Any, files: Any) -> None:
    status, error, _ = await service.post(files.audio(31, "FLAC", rate=8000))
    assert (status, error["code"]) == (413, "too_large")
    assert "31.0 s of audio or more; at most 30 s" in error["error"]


async def test_too_many_bytes_are_refused_before_they_come(service: Any) -> None:
    answer = await service.talk(HEAD, RIGHT, b"Content-Length: 4194305\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"longer than 4194304 bytes" in answer


async def test_a_form_is_refused_with_advice(service: Any, files: Any) -> None:
    form = aiohttp.FormData()
    form.add_field("file", files.audio(1, "WAV"), filename="a.wav")
    status, error, _ = await service.post(form)
    assert (status, "--data-binary" in error["error"]) == (400, True)


async def test_bombs_are_refused_and_cost_the_gateway_no_memory(service: Any, files: Any) -> None:
    await service.post(files.audio(20, "WAV"))
    before = service.rss_mib()
    status, error, _ = await service.post(gzip.compress(bytes(64 << 20)), service.key | {"Content-Encoding": "gzip"})
    assert (status, error["code"]) == (415, "unsupported_encoding")
    # Half an hour of silence in a few bytes, one file that tells its length and one that does not.
    file = io.BytesIO()
    soundfile.write(file, np.zeros(8_000 * 1800, np.int16), 8_000, format="FLAC")
    told = bytearray(file.getvalue())
    untold = told.copy()
    untold[21] &= 0xF0
    untold[22:26] = bytes(4)
    for body in (told, untold):
        assert (await service.post(bytes(body)))[0] == 413

    assert (await service.flood(HEAD + RIGHT + b"Transfer-Encoding: chunked\r\n\r\n")).startswith(b"HTTP/1.1 413 ")
    assert service.rss_mib() - before < 20
