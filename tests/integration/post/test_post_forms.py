"""OpenAI's route over real sockets: forms as its clients send them, and forms that are none."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from asr_gateway.io.spooled_form import MAX_FIELD_BYTES, MAX_FIELDS
from shared.transcript import plain_text, timed_words

PATH = "/v1/audio/transcriptions"
BEARER = {"Authorization": "Bearer right"}
BOUNDARY = b"limit"
HEAD = (
    f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer right\r\n".encode()
    + b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n"
)  # fmt: skip


def form_of(data: bytes | None, *, file_first: bool = False, **fields: str) -> aiohttp.FormData:
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in () if file_first else fields.items():
        form.add_field(name, value)
    if data is not None:
        form.add_field("file", data, filename="a.wav", content_type="audio/wav")
    for name, value in fields.items() if file_first else ():
        form.add_field(name, value)
    return form


async def post(service: Any, data: Any, headers: dict[str, str] = BEARER) -> tuple[int, str, Any]:
    url = f"http://127.0.0.1:{service.port}{PATH}"
    async with aiohttp.request("POST", url, data=data, headers=headers) as response:
        return response.status, await response.text(), response.headers


def part(name: str, value: bytes, *headers: bytes) -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'.encode()
    return b"\r\n".join((b"--" + BOUNDARY, disposition, *headers, b"", value, b""))


async def talk(service: Any, *parts: bytes, end: bytes = b"--" + BOUNDARY + b"--\r\n") -> tuple[int, Any]:
    """Send a form whose bytes are as given; return status and error."""
    body = b"".join(parts) + end
    answer = await service.talk(HEAD, b"Content-Length: %d\r\n\r\n" % len(body), body)
    head, _, said = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(said)["error"]


@pytest.mark.parametrize("file_first", [False, True])
async def test_a_file_in_a_form_is_heard_like_any_other(service: Any, files: Any, *, file_first: bool) -> None:
    data = files.audio(4, "FLAC")
    expected = timed_words(await files.expected_messages(data))

    status, body, headers = await post(service, form_of(data, file_first=file_first, model="asr"))

    assert (status, headers["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(body) == {"text": plain_text(expected), "usage": {"type": "duration", "seconds": 4}}
    assert len(expected) > 3


async def test_the_answer_has_the_shape_that_was_asked_for(service: Any, files: Any) -> None:
    data = files.audio(4, "WAV")
    expected = timed_words(await files.expected_messages(data))

    form = form_of(data, response_format="verbose_json")
    form.add_field("timestamp_granularities[]", "word")
    said = json.loads((await post(service, form))[1])
    assert [(word["word"], word["start"]) for word in said["words"]] == [(word.text, word.start_s) for word in expected]
    assert said["duration"] == pytest.approx(4.0)

    _, srt, headers = await post(service, form_of(data, response_format="srt"))
    assert srt.startswith("1\n00:00:0")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


async def test_the_key_may_be_in_either_header(service: Any, files: Any) -> None:
    for headers, expected in (
        (service.key, 200),
        ({"Authorization": "bearer right"}, 200),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic right"}, 401),
        ({}, 401),
    ):
        status, body, _ = await post(service, form_of(files.audio(1, "WAV")), headers)
        assert status == expected
        assert status == 200 or json.loads(body)["error"]["code"] == "unauthorized"


async def test_models_are_the_modules(service: Any) -> None:
    status, body = await service.get("/v1/models")
    assert (status, [model["id"] for model in json.loads(body)["data"]]) == (200, ["asr"])


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"model": "whisper-1"}, 404, "unknown_module"),
        ({"model": "asr", "response_format": "xml"}, 400, "bad_message"),
        ({"model": "asr", "stream": "true"}, 400, "bad_message"),
    ],
)
async def test_what_is_not_offered_is_refused(
    service: Any, files: Any, fields: dict[str, str], status: int, code: str
) -> None:
    before = await service.refused()
    got, body, headers = await post(service, form_of(files.audio(1, "WAV"), **fields))
    assert (got, json.loads(body)["error"]["code"]) == (status, code)
    assert "Retry-After" not in headers
    assert await service.refused() - before == {code: 1}


async def test_a_form_without_its_file_is_refused(service: Any) -> None:
    status, body, _ = await post(service, form_of(None, model="asr"))
    assert (status, "no field file" in body) == (400, True)


async def test_a_body_that_is_no_form_is_refused_by_what_it_says_it_is(service: Any, files: Any) -> None:
    status, body, _ = await post(service, files.audio(1, "WAV"), BEARER | {"Content-Type": "audio/wav"})
    assert (status, "multipart/form-data" in body, "'audio/wav'" in body) == (400, True, True)


async def test_a_file_that_is_no_audio_is_refused_in_the_shape_of_this_route(service: Any) -> None:
    status, body, _ = await post(service, form_of(b"hello", model="asr"))
    assert (status, json.loads(body)["error"]["code"]) == (400, "bad_audio")


async def test_a_client_that_asks_first_is_told_to_go_on_or_refused(service: Any) -> None:
    expect = b"Expect: 100-continue\r\n"
    assert (await service.talk(HEAD, expect, b"Content-Length: 9\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
    too_long = await service.talk(HEAD, expect, b"Content-Length: 4194305\r\n\r\n")
    assert too_long.startswith(b"HTTP/1.1 413 ")
    assert b'{"error": {"message": "the body is longer than 4194304 bytes", ' in too_long


@pytest.mark.parametrize(
    ("parts", "status", "said"),
    [
        ((part("file", b"x"), part("file", b"y")), 400, "more than one file"),
        ((part("", b"x"),), 400, "a field with a name"),
        ((part("file", b"x", b"Content-Transfer-Encoding: base64"),), 415, "'base64' of the file"),
        ((part("file", b"x", b"Content-Encoding: gzip"),), 415, "'gzip' of the file"),
        ((part("x", b"x", b"Content-Type: multipart/mixed; boundary=y"),), 400, "a field with a name"),
        (
            (part("prompt", b"\xff"), part("file", b"x")),
            400,
            "prompt: the field must be UTF-8; the audio belongs",
        ),
        ((part("prompt", bytes(MAX_FIELD_BYTES + 1)),), 413, f"longer than {MAX_FIELD_BYTES} bytes together"),
        ((part("a", bytes(MAX_FIELD_BYTES)), part("b", b"x")), 413, f"longer than {MAX_FIELD_BYTES} bytes together"),
        (tuple(part(f"f{n}", b"") for n in range(MAX_FIELDS + 1)), 400, f"more than {MAX_FIELDS} fields"),
        ((part("file", b"x", *(b"A%d: b" % n for n in range(200))),), 400, "malformed"),
        ((part("file", b"x", b"A: " + bytes(20_000)),), 400, "malformed"),
        ((b"no field\r\n",), 400, "no field file"),
    ],
)
async def test_a_broken_form_is_refused(service: Any, parts: tuple[bytes, ...], status: int, said: str) -> None:
    got, error = await talk(service, *parts)
    assert (got, said in error["message"]) == (status, True), error


@pytest.mark.parametrize("parts", [(), (part("file", bytes(100_000))[:-2],), (part("file", b"x"), b"--limi")])
async def test_a_form_that_breaks_off_is_refused(service: Any, parts: tuple[bytes, ...]) -> None:
    got, error = await talk(service, *parts, end=b"")
    assert (got, "the form is malformed" in error["message"]) == (400, True), error


async def test_a_long_preamble_is_refused_and_holds_nobody_up(service: Any) -> None:
    begun = time.monotonic()
    refused = asyncio.create_task(talk(service, b"\n" * 500_000))
    while not refused.done():
        await service.get("/healthz")
    got, error = await refused
    assert (got, "it must begin with its boundary" in error["message"]) == (400, True)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(("path", "status"), [("/v1/models/asr", 200), ("/v1/models/x", 404), (PATH, 405)])
async def test_what_only_looks_is_answered_too(service: Any, path: str, status: int) -> None:
    got, body = await service.get(path)
    assert got == status
    assert json.loads(body).get("id") == ("asr" if status == 200 else None)


async def test_a_form_without_a_boundary_is_refused(service: Any) -> None:
    head = HEAD.replace(b"; boundary=" + BOUNDARY, b"")
    assert b"malformed" in await service.talk(head, b"Content-Length: 4\r\n\r\nabcd")


async def test_a_stalled_form_is_refused(service: Any) -> None:
    answer = await service.talk(HEAD, b"Content-Length: 900\r\n\r\n", part("file", b"x"))
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_form_without_an_end_is_refused_and_costs_the_gateway_no_memory(service: Any, files: Any) -> None:
    await post(service, form_of(files.audio(20, "WAV")))
    before = service.rss_mib()
    begin = part("file", b"")[:-2]
    chunk = b"%x\r\n" % len(begin) + begin + b"\r\n"
    answer = await service.flood(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert service.rss_mib() - before < 20


async def test_forms_and_bodies_wait_in_one_line(busy: Any, files: Any) -> None:
    data = files.audio(2, "WAV")
    expected = await files.expected_messages(data)
    answers = await asyncio.gather(busy.post(data), post(busy, form_of(data)))
    assert answers[0][1] == expected
    assert json.loads(answers[1][1])["text"] == plain_text(timed_words(expected))
