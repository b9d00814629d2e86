"""Ends a gateway whose event loop stands still: whoever started it starts it again, and its clients go to others.

    loop: a beat each second      thread: a look every ten seconds ──► six without a beat ──► stacks to stderr, exit 70

A load balancer sees the same by ``/healthz``; on one machine nobody else looks. Looks are counted, no clock is read:
who stood still with the loop, as in a stopped process or on a machine that sleeps, must not judge it.
"""

import asyncio
import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

BEAT_S: Final = 1.0
LOOK_EVERY_S: Final = 10.0
HUNG_AFTER_LOOKS: Final = 6
TELL_WITHIN_S: Final = 2.0


@contextmanager
def watched(*, look_every_s: float = LOOK_EVERY_S, give_up: Callable[[], None] | None = None) -> Iterator[None]:
    """Watch the running event loop meanwhile; ``give_up`` is called in a thread, and by default ends the process."""
    loop = asyncio.get_running_loop()
    n_beats = 0
    due: asyncio.TimerHandle
    is_over = threading.Event()

    def beat() -> None:
        nonlocal n_beats, due
        n_beats += 1
        due = loop.call_later(min(BEAT_S, look_every_s), beat)

    def look() -> None:
        seen, n_looks = -1, 0
        while not is_over.wait(look_every_s):
            seen, n_looks = n_beats, n_looks + 1 if seen == n_beats else 0
            if n_looks == HUNG_AFTER_LOOKS:
                (give_up or _give_up)()
                return

    beat()
    thread = threading.Thread(target=look, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        due.cancel()


def _give_up() -> None:
    # Not by sys.exit: this is a thread, and the loop would be waited for.
    teller = threading.Thread(target=_tell, name="watchdog tells", daemon=True)
    # Where no thread can be started it ends without a word, but it ends.
    with suppress(RuntimeError):
        teller.start()
        teller.join(TELL_WITHIN_S)
    os._exit(os.EX_SOFTWARE)


def _tell() -> None:
    # Not by the log: it may be what hangs. Standard error may be, too, if nobody reads what it is connected to: then
    # the process ends without a word.
    print("asr-gateway: the event loop hangs; where it and the other threads stand:", file=sys.stderr, flush=True)  # noqa: T201
    faulthandler.dump_traceback(sys.stderr)
