"""More files than the one slot holds, clients that leave, and a worker that dies."""

import asyncio
import signal
from typing import Any


async def test_a_full_line_and_a_wait_that_is_over_are_503_with_retry_after(busy: Any, files: Any) -> None:
    await busy.until_used(0)
    before = await busy.refused()
    long = asyncio.create_task(busy.post(files.audio(28, "WAV")))
    await busy.until_used(1)
    waiting = [asyncio.create_task(busy.post(files.audio(1, "WAV"))) for _ in range(2)]
    await busy.until_waiting(2)
    status, error, headers = await busy.post(files.audio(1, "WAV"))
    assert (status, error["code"], headers["Retry-After"]) == (503, "no_free_slot", "5")
    assert error["error"] == "2 files are waiting already, and at most 2 may"
    for status, error, headers in await asyncio.gather(*waiting):
        assert (status, error["code"], headers["Retry-After"]) == (503, "no_free_slot", "5")
    assert (await busy.post(b"no audio"))[0] == 400, "what is no audio is told so though the house is full"
    assert list((busy.folder / "spool").iterdir()) == [], "spooled files have no names"
    long.cancel()
    await asyncio.wait({long})
    await busy.until_used(0)
    assert busy.n_decoders() == 0
    assert await busy.refused() - before == {"no_free_slot": 3, "bad_audio": 1}, "who had a slot was not refused"
    await busy.until("/metrics", 'asr_gateway_sessions_closed_total{kind="file",code="client_gone"} ')


async def test_of_a_burst_only_as_many_wait_as_may(busy: Any) -> None:
    await busy.until_waiting(0)
    streams = [await asyncio.open_connection("127.0.0.1", busy.port) for _ in range(12)]
    # All are there when the gateway looks next: none can have begun to wait before it has read the headers of the last.
    busy.gateway.send_signal(signal.SIGSTOP)
    for _, writer in streams:
        writer.write(b"POST /api/asr-streaming HTTP/1.1\r\nHost: x\r\nkyutai-api-key: right\r\n")
        writer.write(b"Connection: close\r\nContent-Length: 100\r\n\r\nRIFF")
        await writer.drain()
    busy.gateway.send_signal(signal.SIGCONT)
    answers = await asyncio.gather(*[reader.read(4096) for reader, _ in streams])
    for _, writer in streams:
        writer.close()

    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert len(refused) == 10
    assert all(b"Retry-After: 5\r\n" in answer and b"no_free_slot" in answer for answer in refused)
    assert sum(answer.startswith(b"HTTP/1.1 408 ") for answer in answers) == 2, "those that were let wait sent no more"
    await busy.until_waiting(0)


async def test_who_leaves_amid_the_upload_leaves_the_line(busy: Any) -> None:
    head = b"POST /api/asr-streaming HTTP/1.1\r\nHost: x\r\nkyutai-api-key: right\r\nContent-Length: 100\r\n\r\n"
    before = await busy.refused()
    for _ in range(2):
        writers = [(await asyncio.open_connection("127.0.0.1", busy.port))[1] for _ in range(2)]
        for writer in writers:
            writer.write(head)
        await busy.until_waiting(2)
        for writer in writers:
            writer.close()
        await busy.until_waiting(0)
    assert (await busy.refused())["client_gone"] - before["client_gone"] == 4


async def test_who_leaves_while_its_file_waits_for_a_slot_is_counted_as_gone(busy: Any, files: Any) -> None:
    await busy.until_used(0)
    before = await busy.refused()
    long = asyncio.create_task(busy.post(files.audio(28, "WAV")))
    await busy.until_used(1)
    waiting = asyncio.create_task(busy.post(files.audio(1, "WAV")))
    await busy.until_waiting(1)
    await asyncio.sleep(0.5)  # until its decoder has started and it has asked for its slot
    for post in (waiting, long):
        post.cancel()
        await asyncio.wait({post})
        await busy.until_waiting(0)
    await busy.until_used(0)
    assert await busy.refused() - before == {"client_gone": 1}


async def test_files_are_served_in_the_order_in_which_they_came(busy: Any, files: Any) -> None:
    await busy.until_used(0)
    finished: list[int] = []

    async def post(number: int, seconds: float) -> None:
        assert (await busy.post(files.audio(seconds, "WAV")))[0] == 200
        finished.append(number)

    async with asyncio.TaskGroup() as group:
        group.create_task(post(0, 1.5))
        await busy.until_used(1)
        for number in (1, 2):
            group.create_task(post(number, 1.0 / number))
            await busy.until_waiting(number)
    assert finished == [0, 1, 2]


async def test_a_lost_worker_is_a_503_and_the_next_one_serves_again(busy: Any, files: Any) -> None:
    await busy.until_used(0)
    long = asyncio.create_task(busy.post(files.audio(28, "WAV")))
    await busy.until_used(1)
    busy.worker.send_signal(signal.SIGKILL)
    busy.worker.wait()
    status, error, headers = await long
    assert (status, error["code"], headers["Retry-After"]) == (503, "worker_lost", "5")
    lost = await busy.logged("worker_lost", endpoint=busy.endpoint)
    assert (await busy.logged("file_refused", code="worker_lost", worker=lost["worker"]))["session"] > 0
    assert lost["worker"] not in error["error"]
    busy.start_worker()
    await busy.until_ready()
    data = files.audio(1, "WAV")
    assert (await busy.post(data))[1] == await files.expected_messages(data)
    joined = await busy.logged("worker_joined")
    assert (await busy.logged("file_transcribed", worker=joined["worker"]))["session"] > 0
    assert joined["worker"] != lost["worker"]


async def test_a_file_that_may_not_wait_takes_the_slot_that_is_free_or_is_refused_at_once(
    impatient: Any, files: Any
) -> None:
    first = asyncio.create_task(impatient.post(files.audio(8, "WAV")))
    await impatient.until_used(1)
    status, error, _ = await impatient.post(files.audio(1, "WAV"))
    assert (status, error["code"]) == (503, "no_free_slot")
    assert not first.done()
    assert (await first)[0] == 200
    assert await impatient.refused() == {"no_free_slot": 1}
