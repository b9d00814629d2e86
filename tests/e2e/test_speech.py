"""Real speech through real processes: the words, and when they were said."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FRAME_S = 0.08 + 1e-6


async def test_float_arrays_at_the_pace_of_speech_give_the_words_exactly(
    service: Any, recordings: list[Any], speak_live: Callable[..., Any], score: Callable[..., Any]
) -> None:
    heard = await asyncio.gather(*(speak_live(service, recording) for recording in recordings))
    result = score(heard)
    assert result.n_right == result.n_expected, result.differences
    assert result.worst_time_error_s <= 1e-6
    for one in heard:
        check_steps([message for message in one.messages if message["type"] == "Step"])


async def test_a_worker_that_is_killed_amid_speech_costs_no_word(
    start_service: Callable[..., Any],
    recordings: list[Any],
    speak_live: Callable[..., Any],
    score: Callable[..., Any],
) -> None:
    service = start_service("--workers", "2")
    service.wait_until(lambda: "2 workers" in service.output())
    speaking = asyncio.gather(*(speak_live(service, recording) for recording in recordings))
    await asyncio.sleep(2.5)
    service.child("asr_worker").kill()
    heard = await speaking
    # The other model has heard the last seconds only and is near to where the first one was, not exactly there.
    result = score(heard)
    assert result.n_right >= result.n_expected - 1, result.differences
    assert result.worst_time_error_s <= FRAME_S
    for one in heard:
        check_steps([message for message in one.messages if message["type"] == "Step"])
    assert 'sessions_moved_total{kind="live",cause="lost"} 0.0' not in service.text("/metrics")


def check_steps(steps: list[dict[str, Any]]) -> None:
    """Each processed frame is reported once, in order, with its pause probabilities."""
    assert [step["step_idx"] for step in steps] == list(range(1, len(steps) + 1))
    assert all(list(step) == ["type", "step_idx", "prs", "buffered_pcm"] for step in steps)
    assert all(len(step["prs"]) == 4 for step in steps)
    assert all(0.0 <= probability <= 1.0 for step in steps for probability in step["prs"])
    assert all(step["buffered_pcm"] >= 0 for step in steps)


async def test_ogg_opus_at_the_pace_of_speech_gives_the_words(
    service: Any, recordings: list[Any], speak_opus: Callable[..., Any], score: Callable[..., Any]
) -> None:
    heard = await asyncio.gather(*(speak_opus(service, recording) for recording in recordings))
    result = score(heard)
    assert result.n_right >= 0.95 * result.n_expected, result.differences
    assert result.worst_time_error_s <= FRAME_S


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg"])
async def test_posted_files_give_the_words(
    kind: str, service: Any, recordings: list[Any], post: Callable[..., Any], score: Callable[..., Any]
) -> None:
    heard = await asyncio.gather(*(post(service, recording, kind) for recording in recordings))
    result = score(heard)
    assert result.n_right >= 0.95 * result.n_expected, result.differences
    assert result.worst_time_error_s <= FRAME_S


@pytest.mark.parametrize("flags", [[], ["--post"]])
def test_the_transcribe_command_gives_the_words_and_their_times(
    flags: list[str], service: Any, recordings: list[Any], tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(recordings[5].encoded(tmp_path, "wav"))
    answer = subprocess.run(
        [sys.executable, "-m", "asr_cli", "transcribe", "a.wav", "--url", service.url, "--format", "json", *flags],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    words = json.loads(answer.stdout)["words"]
    heard = [(word["text"], round(word["start"], 2), round(word["end"], 2)) for word in words]
    assert heard == recordings[5].expected
