"""Run the children that the supervision decides on: start, watch, signal, and say on the terminal what happens.

Knows processes, signals and the clock; decides nothing.
"""

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, assert_never

from asr_cli.child import bound
from asr_cli.readiness import is_ready, url, wait_until_hung, wait_until_ready
from asr_cli.supervision import (
    AnnounceFailure,
    AnnounceRestart,
    BecameReady,
    ChildExited,
    ChildHung,
    Event,
    Finish,
    SignalChild,
    StartChild,
    StopRequested,
    Supervision,
    TimePassed,
)
from asr_cli.terminal import Terminal
from asr_cli.topology import GATEWAY

NOT_STARTED: Final = 71
"""Stands for the exit status of a child that the system could not start (EX_OSERR)."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessGroup:
    """The running children of one supervisor.

    Args:
        supervision: who decides.
        commands: the command line of each child, by name.
        environment: of each child.
        places: host and port where each child answers ``/readyz``, by name.
        modules: the names of what is served.
        title: what the service is, for the line that says that it is ready.
    """

    def __init__(
        self,
        *,
        supervision: Supervision,
        commands: Mapping[str, Sequence[str]],
        environment: Mapping[str, str],
        places: Mapping[str, tuple[str, int]],
        modules: Sequence[str],
        title: str,
        warnings: Sequence[str] = (),
    ) -> None:
        self._supervision = supervision
        self._commands = commands
        self._environment = environment
        self._places = places
        self._modules = modules
        self._title = title
        self._warnings = warnings
        self._terminal = Terminal()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._announcer: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Run until a signal ends it; return the exit status. No child is left when it returns."""
        self._terminal.start()
        for warning in self._warnings:
            self._terminal.say(warning)
        loop = asyncio.get_running_loop()
        # Who was started by nohup is to outlive its terminal.
        is_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        stop_signals = [number for number in STOP_SIGNALS if number != signal.SIGHUP or not is_nohup]
        for number in stop_signals:
            loop.add_signal_handler(number, self._events.put_nowait, StopRequested())
        try:
            return await self._turn()
        finally:
            for number in stop_signals:
                loop.remove_signal_handler(number)
            await self._end()
            self._terminal.close()

    async def _turn(self) -> int:
        actions = self._supervision.start(now=time.monotonic())
        self._announce_when_ready()
        while True:
            for action in actions:
                if isinstance(action, Finish):
                    return action.status
                await self._perform(action)
            event = await self._next_event()
            if isinstance(event, StopRequested):
                self._terminal.say("stopping: the sessions that run may finish; once more to stop at once")
            actions = self._supervision.handle(event, now=time.monotonic())

    async def _next_event(self) -> Event:
        deadline = self._supervision.next_deadline()
        timeout_s = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            return await asyncio.wait_for(self._events.get(), timeout_s)
        except TimeoutError:
            return TimePassed()

    async def _perform(self, action: StartChild | SignalChild | AnnounceRestart | AnnounceFailure) -> None:
        match action:
            case StartChild(name=name):
                await self._start(name)
            case SignalChild(name=name, signal=number):
                # It may have ended a moment ago, or never begun; then its exit is already in the queue.
                with suppress(ProcessLookupError, KeyError):
                    self._children[name].send_signal(number)
            case AnnounceRestart(name=name, status=status, delay_s=delay_s):
                self._terminal.say(f"{name} {how_it_ended(status)}; starting it again in {delay_s:g} s")
                self._announce_when_ready()
            case AnnounceFailure(name=name, status=status):
                self._terminal.say(f"{name} {how_it_ended(status)}; nothing is served until that is mended")
            case _:
                assert_never(action)

    async def _start(self, name: str) -> None:
        try:
            child = await asyncio.create_subprocess_exec(
                *bound(*self._commands[name]),
                stdin=asyncio.subprocess.DEVNULL,
                env=self._environment,
                # A group of its own: Ctrl-C on the terminal reaches this process only, which stops the others in order.
                start_new_session=True,
            )
        except OSError as error:
            # Out of memory, say: no reason to take the children that run with us.
            self._terminal.say(f"{name} cannot be started: {error.strerror}")
            self._events.put_nowait(ChildExited(name=name, status=NOT_STARTED))
            return
        self._children[name] = child
        task = asyncio.create_task(self._watch(name, child))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, name: str, child: asyncio.subprocess.Process) -> None:
        health = asyncio.create_task(self._watch_health(name))
        try:
            status = await child.wait()
        finally:
            health.cancel()
        self._events.put_nowait(ChildExited(name=name, status=status))

    async def _watch_health(self, name: str) -> None:
        await wait_until_ready(*self._places[name])
        self._events.put_nowait(BecameReady(name=name))
        # A gateway that answers no stranger, out of descriptors say, may serve its sessions well: it watches itself.
        if name != GATEWAY:
            await wait_until_hung(*self._places[name])
            self._terminal.say(f"{name} hangs: it has not answered for long, or its loop has stopped; killing it")
            self._events.put_nowait(ChildHung(name=name))

    def _announce_when_ready(self) -> None:
        if self._announcer is None or self._announcer.done():
            self._announcer = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        place = self._places[GATEWAY]
        await wait_until_ready(*place)
        workers = {name: its for name, its in self._places.items() if name != GATEWAY}
        missing = [name for name, its in workers.items() if not await is_ready(*its)]
        # If none is ready, the gateway has not noticed yet that the last one went.
        if 0 < len(missing) < len(workers):
            self._terminal.say(f"{url(*place)} takes sessions; not ready yet: {', '.join(missing)}")
        for its in workers.values():
            await wait_until_ready(*its)
        await wait_until_ready(*place, *self._modules)
        self._terminal.say(f"ready: {self._title} on {url(*place)} - Ctrl-C stops it")

    async def _end(self) -> None:
        tasks = [*self._tasks, *([self._announcer] if self._announcer else [])]
        for child in self._children.values():
            if child.returncode is None:
                child.kill()
                await child.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def how_it_ended(status: int) -> str:
    """Put the exit status of a child into words; a negative one is the signal that ended it."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # the real-time signals have no names
        return f"was ended by signal {-status}"
