"""Workers die, hang, fail and are stopped amid speech, and the client's transcript is what it would have been.

The words of the fake model depend on every sample of the last 128 frames and on its own words: one frame that is lost,
doubled or repeated wrongly changes all that follows.
"""

import asyncio
import io
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest

LONG = {"replay_s": 20.0}
"""More than the fake model looks back: then words are the same to the letter."""
N_FRAMES = 240


async def tell(client: Any, pcm: Any) -> list[dict[str, Any]]:
    """Speak faster than people do, ask for a marker, and return all that came until the last word is out."""

    async def speak() -> None:
        for start in range(0, len(pcm), 5 * 1920):
            await client.speak(pcm[start : start + 5 * 1920])
            await asyncio.sleep(0.02)
        await client.send("Marker", id=5)
        await client.send("Flush", id=9)

    speaking = asyncio.create_task(speak())
    messages: list[dict[str, Any]] = await client.until("Flushed")
    await speaking
    return messages


def check(rig: Any, messages: Sequence[dict[str, Any]], pcm: Any) -> None:
    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)
    assert [m["step_idx"] for m in messages if m["type"] == "Step"] == list(range(1, len(pcm) // 1920 + 1))
    assert [(m["type"], m["id"]) for m in messages if "id" in m] == [("Marker", 5), ("Flushed", 9)]
    # No second Ready, no Error.
    assert {m["type"] for m in messages} <= {"Word", "EndWord", "Step", "Marker", "Flushed"}


async def moved(gateway: Any, kind: str = "live", cause: str = "lost") -> float:
    return float(await gateway.metric(f'asr_gateway_sessions_moved_total{{kind="{kind}",cause="{cause}"}}'))


async def holder(gateway: Any, workers: Sequence[Any]) -> Any:
    """The worker with most sessions."""
    used = [await gateway.metric(f'asr_gateway_worker_slots_used{{worker="{w.endpoint}"}}') for w in workers]
    return workers[used.index(max(used))]


async def test_silence_that_is_fed_first_is_fed_by_each_worker_until_there_is_audio(rig: Any) -> None:
    worker = rig.worker("--fake-step-ms", "30")
    pcm = rig.noise(20)
    prefix = {"params": {"silence_prefix": "1"}}
    async with (
        rig.gateway(worker.endpoint, prefix_frames=12, **LONG) as gateway,
        gateway.ready_client(**prefix) as client,
    ):
        await asyncio.sleep(0.15)
        worker.kill()
        await asyncio.to_thread(worker.start)
        await client.speak(pcm)
        await client.send("Flush")
        messages = await client.until("Flushed")
    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True, prefix_frames=12)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP], ids=["killed", "stopped", "halted"])
async def test_sessions_go_on_elsewhere_when_their_worker_is(rig: Any, how: signal.Signals) -> None:
    # Both have room for all.
    workers = [rig.worker("--fake-slots", "6", "--fake-step-ms", "2", "--gateway-timeout-s", "2") for _ in range(2)]
    random = Random(3)
    async with rig.gateway(*[w.endpoint for w in workers], **LONG) as gateway, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(gateway.ready_client()) for _ in range(6)]
        speech = [rig.noise(N_FRAMES, seed) for seed in range(6)]
        telling = [asyncio.create_task(tell(c, pcm)) for c, pcm in zip(clients, speech, strict=True)]
        await asyncio.sleep(random.uniform(0.2, 0.6))
        lost = await holder(gateway, workers)
        lost.process.send_signal(how)
        for messages, pcm in zip(await asyncio.gather(*telling), speech, strict=True):
            check(rig, messages, pcm)
        cause, other = ("restart", "lost") if how is signal.SIGTERM else ("lost", "restart")
        assert 1 <= await moved(gateway, cause=cause) <= 6
        assert await moved(gateway, cause=other) == 0
        if how is signal.SIGTERM:
            assert await asyncio.to_thread(lost.process.wait, 10) == 0
        if how is signal.SIGSTOP:
            # What it had still to say is of sessions that are elsewhere, and its slots come back.
            lost.process.send_signal(signal.SIGCONT)
            await rig.eventually(lambda: rig.is_ready(gateway, 2))
            await asyncio.gather(*[client.socket.close() for client in clients])
            await rig.eventually(lambda: _all_free(gateway))


async def _all_free(gateway: Any) -> bool:
    return bool(await gateway.used_slots() == 0)


async def test_the_only_worker_is_back_in_time(rig: Any) -> None:
    worker = rig.worker("--fake-step-ms", "2")
    pcm = rig.noise(N_FRAMES)
    async with rig.gateway(worker.endpoint, **LONG) as gateway, gateway.ready_client() as client:
        telling = asyncio.create_task(tell(client, pcm))
        await asyncio.sleep(0.4)
        worker.kill()
        await asyncio.sleep(0.3)
        await asyncio.to_thread(worker.start)
        check(rig, await telling, pcm)


async def test_a_model_that_fails_loses_its_sessions_to_another(rig: Any) -> None:
    failing, sound = rig.worker("--fake-fail-at-step", "100", "--fake-slots", "8"), rig.worker("--fake-slots", "2")
    pcm = rig.noise(N_FRAMES)
    async with rig.gateway(failing.endpoint, sound.endpoint, **LONG) as gateway, gateway.ready_client() as client:
        check(rig, await tell(client, pcm), pcm)
        assert await moved(gateway) == 1


async def test_a_session_under_which_two_workers_fail_is_suspected_and_ends(rig: Any) -> None:
    workers = [rig.worker("--fake-fail-at-step", "50", "--fake-slots", str(n)) for n in (8, 4)]
    spared = rig.worker("--fake-slots", "2")
    endpoints = [worker.endpoint for worker in (*workers, spared)]
    async with rig.gateway(*endpoints, **LONG) as gateway:
        async with gateway.ready_client() as client:
            await client.speak(rig.noise(N_FRAMES))
            error = (await client.until("Error"))[-1]
        assert error["code"] == "worker_lost"
        assert await moved(gateway) == 1
        async with gateway.ready_client() as client:
            pcm = rig.noise(12)
            await client.speak(pcm)
            await client.send("Flush")
            assert rig.words_of(await client.until("Flushed")) == rig.expected_words(pcm, flush=True)


async def test_a_file_goes_on_elsewhere_too(rig: Any, wav_of: Any) -> None:
    workers = [rig.worker("--fake-slots", "4", "--fake-step-ms", "3") for _ in range(2)]
    pcm = rig.noise(400)
    headers = {"kyutai-api-key": rig.KEY}
    async with rig.gateway(*[w.endpoint for w in workers], **LONG) as gateway:
        posting = asyncio.create_task(
            _post(gateway, gateway.url + rig.PATH, data=io.BytesIO(wav_of(pcm)), headers=headers),
        )
        await rig.eventually(lambda: _is_used(gateway))
        await asyncio.sleep(0.3)
        (await holder(gateway, workers)).kill()
        status, messages = await posting
        assert status == 200
        assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)
        assert await moved(gateway, "file") == 1


async def test_a_file_stays_on_a_worker_that_drains_while_the_others_have_no_room_for_files(
    rig: Any, wav_of: Any
) -> None:
    # A quarter of four slots: one file each.
    flags = ("--fake-slots", "4", "--fake-step-ms", "10", "--drain-s", "60")
    workers = [rig.worker(*flags) for _ in range(2)]
    pcm = rig.noise(200)
    request = {"headers": {"kyutai-api-key": rig.KEY}}
    async with rig.gateway(*[w.endpoint for w in workers], **LONG) as gateway:
        url = gateway.url + rig.PATH
        posting = [asyncio.create_task(_post(gateway, url, data=io.BytesIO(wav_of(pcm)), **request)) for _ in range(2)]
        await rig.eventually(lambda: _are_used(gateway, 2))
        workers[0].process.send_signal(signal.SIGTERM)
        for status, messages in await asyncio.gather(*posting):
            assert status == 200
            assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)
        assert await asyncio.to_thread(workers[0].process.wait, 10) == 0


async def _are_used(gateway: Any, n_slots: int) -> bool:
    return bool(await gateway.used_slots() == n_slots)


async def _is_used(gateway: Any) -> bool:
    return bool(await gateway.used_slots() == 1)


async def _post(gateway: Any, url: str, **request: Any) -> tuple[int, Any]:
    async with gateway.http.post(url, **request) as response:
        return response.status, await response.json()


async def test_with_little_repeated_times_and_counts_are_still_exact(rig: Any) -> None:
    workers = [rig.worker("--fake-slots", "4", "--fake-step-ms", "2") for _ in range(2)]
    pcm = rig.noise(N_FRAMES)
    async with rig.gateway(*[w.endpoint for w in workers], replay_s=0.0) as gateway, gateway.ready_client() as client:
        telling = asyncio.create_task(tell(client, pcm))
        await asyncio.sleep(0.4)
        (await holder(gateway, workers)).kill()
        messages = await telling
        assert await moved(gateway) == 1
    assert [m["step_idx"] for m in messages if m["type"] == "Step"] == list(range(1, N_FRAMES + 1))
    times = [m["start_time"] for m in messages if m["type"] == "Word"]
    assert times == sorted(times)
    # No end of a word is lost or said twice, though the next worker heard little of what was before.
    assert [m["type"] for m in messages if m["type"].endswith("Word")] == ["Word", "EndWord"] * len(times)
    # Words are others than they would have been from there on, but as many as there is speech for.
    assert len(times) == pytest.approx(len(rig.expected_words(pcm, flush=True)) / 2, rel=0.2)


async def test_an_init_while_the_session_has_no_worker_begins_afresh(rig: Any) -> None:
    worker = rig.worker()
    pcm = rig.noise(20, seed=2)
    async with rig.gateway(worker.endpoint, **LONG) as gateway, gateway.ready_client() as client:
        await client.speak(rig.noise(10))
        await client.until("Step")
        worker.kill()
        await client.send("Init")
        await client.speak(pcm)
        await client.send("Flush")
        await asyncio.to_thread(worker.start)
        await client.until("Ready")
        messages = await client.until("Flushed")
    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True)
    assert [m["step_idx"] for m in messages if m["type"] == "Step"] == list(range(1, 21))
