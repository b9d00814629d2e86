import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time

from asr_gateway.io.watchdog import HUNG_AFTER_LOOKS, watched

LOOK_S = 0.01


async def test_a_loop_that_stands_still_is_given_up_once() -> None:
    calls: list[str] = []
    given_up = threading.Event()

    def give_up() -> None:
        calls.append("given up")
        given_up.set()

    with watched(look_every_s=LOOK_S, give_up=give_up):
        assert given_up.wait(5)  # holds the loop
        await asyncio.sleep(2 * HUNG_AFTER_LOOKS * LOOK_S)
    assert calls == ["given up"]


async def test_a_loop_that_turns_now_and_then_is_left_alone() -> None:
    calls: list[str] = []
    with watched(look_every_s=0.1, give_up=lambda: calls.append("given up")):
        for _ in range(4):
            time.sleep(0.3)  # noqa: ASYNC251 the loop stands still, for half as long as it may
            await asyncio.sleep(0.11)
    assert calls == []


def test_a_process_whose_loop_hangs_says_where_and_ends() -> None:
    code = """
import asyncio, time
from asr_gateway.io.watchdog import watched

async def main():
    with watched(look_every_s=0.02):
        await asyncio.sleep(0.1)
        where_it_hangs()

def where_it_hangs():
    time.sleep(60)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == os.EX_SOFTWARE
    assert "where_it_hangs" in ended.stderr


def test_a_process_ends_that_may_start_no_thread_to_tell_why() -> None:
    code = """
import asyncio, threading, time
from asr_gateway.io.watchdog import watched

def no_thread(_):
    raise RuntimeError("can't start new thread")

async def main():
    with watched(look_every_s=0.02):
        threading.Thread.start = no_thread
        time.sleep(60)

asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=30, check=False)
    assert ended.returncode == os.EX_SOFTWARE


def test_a_process_ends_whose_standard_error_nobody_reads() -> None:
    code = """
import asyncio, time
from asr_gateway.io.watchdog import watched

async def main():
    with watched(look_every_s=0.02):
        time.sleep(60)

asyncio.run(main())
"""
    reading, writing = os.pipe()
    try:
        os.set_blocking(writing, False)
        for n_bytes in (1 << 16, 1):  # the last page, too
            with contextlib.suppress(BlockingIOError):
                while True:
                    os.write(writing, b"x" * n_bytes)
        os.set_blocking(writing, True)
        with subprocess.Popen([sys.executable, "-c", code], stderr=writing) as process:
            try:
                assert process.wait(20) == os.EX_SOFTWARE
            finally:
                process.kill()
    finally:
        os.close(reading)
        os.close(writing)
