"""Files that are transcribed: the fake model tells lost or doubled audio by its words."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import soundfile


@pytest.mark.parametrize(
    "case",
    [
        ("WAV", "PCM_16", 24_000, 1),
        ("WAV", "PCM_24", 8_000, 1),
        ("FLAC", None, 44_100, 2),
        ("MP3", None, 44_100, 2),
        ("OGG", "VORBIS", 48_000, 1),
        ("OGG", "OPUS", 48_000, 2),
        ("AIFF", None, 16_000, 6),
    ],
)
async def test_every_sample_of_a_file_reaches_the_model(
    service: Any, files: Any, case: tuple[str, str | None, int, int]
) -> None:
    form, subtype, rate, channels = case
    data = files.audio(6, form, subtype, rate=rate, channels=channels)
    status, messages, _ = await service.post(data)
    assert status == 200
    assert messages == await files.expected_messages(data)
    assert len(messages) > 10


async def test_messages_have_their_type_first_and_fields_in_order(service: Any, files: Any) -> None:
    _, messages, headers = await service.post(files.audio(2, "WAV"))
    assert headers["Content-Type"] == "application/json; charset=utf-8"
    assert {tuple(message) for message in messages} == {("type", "text", "start_time"), ("type", "stop_time")}


async def test_the_end_of_the_last_word_is_told_though_the_file_ends_in_it(service: Any, files: Any) -> None:
    _, messages, _ = await service.post(files.audio(4.1, "WAV"))
    assert messages[-1] == {"type": "EndWord", "stop_time": pytest.approx(4.1, abs=0.081)}


async def test_a_silent_file_has_no_words(service: Any) -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(24_000, np.float32), 24_000, format="WAV")
    assert (await service.post(file.getvalue()))[:2] == (200, [])


async def test_a_body_in_chunks_is_the_same_file(service: Any, files: Any) -> None:
    data = files.audio(2, "FLAC")

    async def chunks() -> AsyncIterator[bytes]:
        for begin in range(0, len(data), 1000):
            yield data[begin : begin + 1000]

    assert (await service.post(chunks()))[1] == await files.expected_messages(data)


async def test_more_files_than_slots_all_get_their_own_words(service: Any, files: Any) -> None:
    bodies = [files.audio(2 + 0.3 * i, "WAV") for i in range(6)]
    answers = await asyncio.gather(*[service.post(data) for data in bodies])
    assert [messages for _, messages, _ in answers] == [await files.expected_messages(data) for data in bodies]
    await service.until_used(0)


async def test_the_words_of_files_and_the_bytes_of_answers_are_counted(service: Any, files: Any) -> None:
    async def count(name: str) -> float:
        lines = (await service.get("/metrics"))[1].splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"asr_gateway_{name}_total ")), 0.0)

    words, sent = await count("words"), await count("sent_bytes")

    _, messages, headers = await service.post(files.audio(2, "WAV"))

    assert await count("words") - words == sum(message["type"] == "Word" for message in messages) > 0
    assert await count("sent_bytes") - sent == int(headers["Content-Length"])
