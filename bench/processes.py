"""Gateways and workers as real processes, for benchmarks; and what they cost."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asr_cli.child import bound
from bench.engines.process import ROOT

READY_S = 90.0
PATH = "/api/asr-streaming"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Gateways and the workers that they share."""

    urls: tuple[str, ...]
    gateway_pids: tuple[int, ...]
    worker_pids: tuple[int, ...]
    metrics_urls: tuple[str, ...]
    """Of the workers."""

    @property
    def url(self) -> str:
        """Where the first gateway serves."""
        return self.urls[0]

    @property
    def gateway_pid(self) -> int:
        """The first gateway."""
        return self.gateway_pids[0]


@contextlib.contextmanager
def running(*command: str, core: int | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a command until the block or this process ends.

    Its output goes where ours goes when something is wrong: to stderr.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(bound(*command), cwd=ROOT, env=environment, stdout=sys.stderr)
    pin(process.pid, core)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def service(
    worker_flags: list[str],
    gateway_flags: list[str] | None = None,
    *,
    n_workers: int = 1,
    n_gateways: int = 1,
    worker_core: int | None = None,
    gateway_core: int | None = None,
) -> Iterator[Service]:
    """Run gateways with workers until the block ends. Without ``--config`` anybody may enter."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flags = gateway_flags or []
        if "--config" not in flags:
            flags = [*flags, "--allow-no-keys"]
        workers, gateways, metrics_urls, urls = [], [], [], []
        for i in range(n_workers):
            endpoint, metrics_port = f"ipc://{folder}/worker{i}", str(free_port())
            own = ("--bind", endpoint, "--metrics-port", metrics_port, "--log", "error")
            command = (sys.executable, "-m", "asr_worker", *own, *worker_flags)
            workers.append(stack.enter_context(running(*command, core=worker_core)))
            metrics_urls.append(f"http://127.0.0.1:{metrics_port}/metrics")
            flags = [*flags, "--worker", endpoint]
        for _ in range(n_gateways):
            port = str(free_port())
            command = (sys.executable, "-m", "asr_gateway", "--port", port, "--log", "error", *flags)
            gateways.append(stack.enter_context(running(*command, core=gateway_core)))
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            await_ready(url, *gateways, *workers)
        yield Service(
            urls=tuple(urls),
            gateway_pids=tuple(process.pid for process in gateways),
            worker_pids=tuple(process.pid for process in workers),
            metrics_urls=tuple(metrics_urls),
        )


def await_ready(url: str, *processes: "subprocess.Popen[bytes]") -> None:
    """Wait until a server serves.

    Raises:
        TimeoutError: it does not in time, or one of the processes that it needs has ended.
    """
    give_up_s = time.monotonic() + READY_S
    while time.monotonic() < give_up_s and all(process.poll() is None for process in processes):
        with contextlib.suppress(OSError, urllib.error.HTTPError), urllib.request.urlopen(f"{url}/readyz", timeout=2):
            return
        time.sleep(0.1)
    message = f"{url} is not ready, {READY_S:.0f} s being the limit; what its processes said is above"
    raise TimeoutError(message)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has spent, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def pin(pid: int, core: int | None) -> None:
    """Bind a process to a core, where the system can."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(pid, {core % (os.cpu_count() or 1)})
