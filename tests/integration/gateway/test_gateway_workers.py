"""Gateways and workers in any number: sharing, placement, loss and return."""

import asyncio
import signal
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
from structlog.testing import capture_logs


async def _free_slots(gateway: Any, n_slots: int) -> bool:
    answer = await gateway.json("/readyz")
    return bool(sum(facts["free_slots"] for facts in answer["modules"].values()) == n_slots)


async def _words(client: Any, rig: Any, pcm: Any) -> bool:
    await client.speak(pcm)
    await client.send("Flush")
    return bool(rig.words_of(await client.until("Flushed")) == rig.expected_words(pcm, flush=True))


async def test_two_gateways_share_the_slots_of_one_worker(rig: Any, shared_worker: Any) -> None:
    endpoint = shared_worker.endpoint
    async with rig.gateway(endpoint) as one, rig.gateway(endpoint) as other, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(gateway.ready_client()) for gateway in (one, one, one, other)]
        async with one.client() as refused_here, other.client() as refused_there:
            assert [(await client.refusal())[2] for client in (refused_here, refused_there)] == [1013, 1013]

        heard = await asyncio.gather(*[_words(client, rig, rig.noise(12, seed)) for seed, client in enumerate(clients)])

        assert heard == [True] * 4


async def test_one_gateway_fills_three_workers(rig: Any) -> None:
    workers = [rig.worker("--fake-slots", "2") for _ in range(2)] + [rig.worker("--fake-slots", "1")]
    endpoints = [worker.endpoint for worker in workers]
    async with rig.gateway(*endpoints, move_wait_s=0.2) as gateway, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(gateway.ready_client()) for _ in range(5)]
        async with gateway.client() as refused:
            assert (await refused.refusal())[0] == "no_free_slot"

        heard = await asyncio.gather(*[_words(client, rig, rig.noise(12, seed)) for seed, client in enumerate(clients)])

        assert heard == [True] * 5

        # One of them dies, and nobody has room: only its sessions end, and the others go on.
        workers[2].kill()
        ends = [asyncio.create_task(client.refusal()) for client in clients]
        done, running = await asyncio.wait(ends, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[::2] for task in done] == [("worker_lost", 1011)]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_a_worker_that_dies_and_returns_is_used_again(rig: Any) -> None:
    worker = rig.worker()
    async with rig.gateway(worker.endpoint, move_wait_s=0.0) as gateway:
        async with gateway.ready_client() as client:
            await client.speak(rig.noise(3))
            await client.until("Step")

            worker.kill()

            assert (await client.refusal())[::2] == ("worker_lost", 1011)
        assert await gateway.status("/readyz") == 503
        assert await gateway.status("/healthz") == 200

        worker.start()
        await rig.eventually(lambda: rig.is_ready(gateway, 1))
        async with gateway.ready_client() as client:
            assert await _words(client, rig, rig.noise(12))


async def test_a_worker_that_hangs_is_given_up_and_taken_back_when_it_wakes(rig: Any) -> None:
    worker = rig.worker("--gateway-timeout-s", "1")
    async with rig.gateway(worker.endpoint, move_wait_s=0.0) as gateway:
        async with gateway.ready_client() as client:
            worker.process.send_signal(signal.SIGSTOP)

            assert (await client.refusal())[::2] == ("worker_lost", 1011)
            assert await gateway.status("/readyz") == 503

        worker.process.send_signal(signal.SIGCONT)
        await rig.eventually(lambda: rig.is_ready(gateway, 1))
        # The slot of the session that was cut off comes back, too.
        await rig.eventually(lambda: _free_slots(gateway, 8))
        async with gateway.ready_client() as client:
            assert await _words(client, rig, rig.noise(12))


async def test_a_session_goes_to_another_worker_if_the_one_that_was_asked_does_not_answer(rig: Any) -> None:
    roomy, other = rig.worker("--fake-slots", "6"), rig.worker("--fake-slots", "2")
    async with rig.gateway(roomy.endpoint, other.endpoint) as gateway, AsyncExitStack() as stack:
        roomy.process.send_signal(signal.SIGSTOP)
        client = await stack.enter_async_context(gateway.ready_client())
        roomy.process.send_signal(signal.SIGCONT)

        assert await _words(client, rig, rig.noise(12))
        # The late Ready was for a session that is elsewhere: its slot is not taken.
        for _ in range(7):
            await stack.enter_async_context(gateway.ready_client())


@pytest.mark.slow
async def test_a_worker_with_slow_steps_may_be_halted_for_as_long_as_it_may_be_silent(rig: Any) -> None:
    # Two and a half deadlines of six steps: 6 s.
    worker = rig.worker("--fake-step-ms", "400", "--measure-s", "0")
    async with rig.gateway(worker.endpoint) as gateway, gateway.ready_client() as client:
        worker.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(4.5)
        worker.process.send_signal(signal.SIGCONT)

        await client.send("Flush", id=7)
        assert (await client.until("Flushed"))[-1]["id"] == 7


async def test_a_client_that_says_nothing_keeps_its_slot_however_soon_silent_gateways_lose_theirs(rig: Any) -> None:
    worker = rig.worker("--gateway-timeout-s", "0.5")
    async with rig.gateway(worker.endpoint) as gateway, gateway.ready_client() as client:
        await asyncio.sleep(2.2)
        await client.send("Flush", id=1)
        assert (await client.receive())["type"] == "Flushed"


async def test_a_draining_worker_finishes_what_it_has_and_gets_nothing_new(rig: Any) -> None:
    worker = rig.worker()
    async with rig.gateway(worker.endpoint) as gateway:
        async with gateway.ready_client() as client:
            worker.process.send_signal(signal.SIGTERM)
            await rig.eventually(lambda: _is_not_ready(gateway))
            async with gateway.client() as late:
                assert (await late.refusal())[0] == "no_free_slot"

            assert await _words(client, rig, rig.noise(12))
        assert await asyncio.to_thread(worker.process.wait, 10) == 0


async def test_a_session_that_outlasts_its_workers_drain_is_told_that_it_restarts(rig: Any) -> None:
    worker = rig.worker("--drain-s", "0", "--fake-slots", "20")
    async with rig.gateway(worker.endpoint, move_wait_s=0.2) as gateway, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(gateway.ready_client()) for _ in range(20)]
        worker.process.send_signal(signal.SIGTERM)

        ends = await asyncio.gather(*[client.refusal() for client in clients])

        why = "the worker of this session is restarting; please open a new session"
        assert set(ends) == {("restarting", why, 1012)}
        assert await gateway.metric('asr_gateway_sessions_closed_total{kind="live",code="worker_lost"}') == 0
    assert await asyncio.to_thread(worker.process.wait, 10) == 0


async def _is_not_ready(gateway: Any) -> bool:
    return bool(await gateway.status("/readyz") == 503)


async def test_without_a_worker_nothing_is_ready_and_clients_are_refused(rig: Any) -> None:
    async with rig.gateway("tcp://127.0.0.1:1", wait=False) as gateway:
        assert await gateway.status("/readyz") == 503
        async with gateway.client() as client:
            assert await client.refusal() == ("no_free_slot", "no free channels", 1013)


async def test_a_session_that_is_one_too_many_for_the_gateway_is_refused_and_counted(
    rig: Any, shared_worker: Any
) -> None:
    async with rig.gateway(shared_worker.endpoint, max_sessions=1) as gateway, gateway.ready_client():
        async with gateway.client() as client:
            assert (await client.refusal())[0] == "no_free_slot"
        assert await gateway.metric('asr_gateway_sessions_refused_total{kind="live",code="no_free_slot"}') == 1


async def test_who_leaves_before_it_has_a_slot_is_counted_as_gone(rig: Any) -> None:
    async with rig.gateway(slot_wait_s=30.0) as gateway:
        async with gateway.client():
            pass
        gone = 'asr_gateway_sessions_refused_total{kind="live",code="client_gone"}'
        await rig.eventually(lambda: _counts(gateway, gone, 1))


async def _counts(gateway: Any, series: str, n: int) -> bool:
    return bool(await gateway.metric(series) == n)


async def test_a_model_without_heads_sends_no_steps(rig: Any) -> None:
    worker = rig.worker("--fake-heads", "0", "--fake-delay", "32")
    pcm = rig.noise(12)
    async with rig.gateway(worker.endpoint) as gateway, gateway.ready_client() as client:
        await client.speak(pcm)
        await client.send("Flush")
        messages = await client.until("Flushed")

    assert {message["type"] for message in messages} == {"Word", "EndWord", "Flushed"}
    assert rig.words_of(messages) == rig.expected_words(pcm, flush=True, n_heads=0, delay_frames=32)


async def test_workers_of_another_module_are_not_used_and_the_operator_learns_why(rig: Any, shared_worker: Any) -> None:
    async def is_told() -> bool:
        return any(line["event"] == "worker_refused" for line in lines)

    with capture_logs() as lines:
        async with rig.gateway(shared_worker.endpoint, wait=False, module="other") as gateway:
            await rig.eventually(is_told)
            async with gateway.client() as client:
                assert (await client.refusal())[0] == "no_free_slot"
            assert await gateway.status("/readyz") == 503

    (told,) = [line for line in lines if line["event"] == "worker_refused"]
    assert told["reason"] == "it serves the module 'fake', this gateway other"


async def test_a_hundred_sessions_come_and_go_on_four_slots_and_each_gets_its_own_words(
    rig: Any, shared_worker: Any
) -> None:
    crowd = asyncio.Semaphore(12)
    random = Random(1)

    async def one(gateway: Any, seed: int) -> bool:
        async with crowd, gateway.ready_client() as client:
            await asyncio.sleep(random.uniform(0, 0.05))
            if seed % 5 == 0:  # leaves in the middle of a word
                await client.speak(rig.noise(6, seed))
                return True
            return await _words(client, rig, rig.noise(random.uniform(3, 15), seed))

    async with rig.gateway(shared_worker.endpoint, slot_wait_s=30.0) as gateway:
        heard = await asyncio.gather(*[one(gateway, seed) for seed in range(100)])

        assert heard == [True] * 100
        await rig.eventually(lambda: _free_slots(gateway, rig.N_SLOTS))
        assert await gateway.metric('asr_open_channels{handler="all"}') == 0
