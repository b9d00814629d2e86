"""How many live streams one core's gateway carries, beside a bare aiohttp server that moves the same bytes.

    python -m bench.gateway [--sessions 100] [--packings float80 float20 opus20]

What is measured is the server's CPU time for each second of each stream, while it is far from full: other work on the
machine does not change it much. Streams per core is its inverse; a full core batches more and so carries some more.
The gateway has core 0 for itself, the clients and a worker with the fake model core 1.

Aims (issue 4): at least 70 % of the bare server's streams, and above 1000 at 80 ms.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from bench.clients import Load, run_clients
from bench.packets import PACKINGS
from bench.processes import PATH, await_ready, cpu_s, free_port, pin, running, service
from bench.report import Report, median, quantile

LIMIT = "the bytes of a stream through a bare aiohttp WebSocket on the same core"
AIM = 0.7
GATEWAY_CORE, OTHER_CORE = 0, 1
STEP_MS = 20.0
MESSAGES_PER_STEP = {"float80": 1, "float20": 4, "opus20": 4}


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--packings", nargs="+", choices=PACKINGS, default=list(PACKINGS))
    parser.add_argument("--rounds", type=int, default=1, help="turns of each server; the median counts")
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("gateway", LIMIT, {k: str(v) for k, v in vars(options).items()})
    pin(0, OTHER_CORE)  # The clients are our children and go where we go.
    rows = [compare(packing, options) for packing in options.packings]
    report.table(rows)
    report.finish(keep=options.keep)
    return 0


def compare(packing: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one line of the table."""
    ours: list[dict[str, float]] = []
    bare: list[dict[str, float]] = []
    with our_gateway(options.sessions) as (url, pid), bare_server(MESSAGES_PER_STEP[packing]) as (bare_url, bare_pid):
        for _ in range(options.rounds):
            ours.append(measure(url, pid, packing, options))
            bare.append(measure(bare_url, bare_pid, packing, options))
    streams, floor = (median([1 / run["cpu_per_stream"] for run in runs]) for runs in (ours, bare))
    return {
        "packing": packing,
        "sessions": options.sessions,
        "streams_per_core": streams,
        "bare_streams_per_core": floor,
        "share": streams / floor,
        "aim": AIM,
        "cpu_us_per_frame": median([run["cpu_per_stream"] for run in ours]) * 80e3,
        "bare_cpu_us_per_frame": median([run["cpu_per_stream"] for run in bare]) * 80e3,
        "lag_p99_ms": median([run["lag_p99_ms"] for run in ours]),
        "errors": sum(run["errors"] for run in (*ours, *bare)),
    }


def measure(url: str, pid: int, packing: str, options: argparse.Namespace) -> dict[str, float]:
    """Run the clients against one server; return what it spent."""
    load = Load(
        url=url.replace("http", "ws") + PATH,
        key="public_token",
        n_clients=options.sessions,
        packing=packing,
        seconds=options.seconds,
    )
    before_s = cpu_s(pid)
    sessions = run_clients(load, 1)
    spent_s = cpu_s(pid) - before_s
    seconds = options.seconds + median([session.marker_s for session in sessions if session.marker_s is not None])
    lags = [lag for session in sessions for lag in session.lags_s]
    return {
        "cpu_per_stream": max(spent_s, 0.01) / (options.sessions * seconds),
        "lag_p99_ms": 1e3 * quantile(lags, 0.99),
        "errors": sum(session.error is not None for session in sessions),
    }


@contextlib.contextmanager
def our_gateway(n_sessions: int) -> Iterator[tuple[str, int]]:
    """Run a gateway with a fake worker; yields its address and pid."""
    flags = ["--model", "fake", "--fake-slots", str(n_sessions), "--fake-codebooks", "32"]
    # As on a GPU that is well used: a step answers many frames at once.
    flags += ["--fake-step-ms", str(STEP_MS)]
    with service(flags, worker_core=OTHER_CORE, gateway_core=GATEWAY_CORE) as ours:
        yield ours.url, ours.gateway_pid


@contextlib.contextmanager
def bare_server(every: int) -> Iterator[tuple[str, int]]:
    """Run the bare server; yields its address and pid."""
    port = free_port()
    command = (sys.executable, "-m", "bench.echo", "--port", str(port), "--every", str(every))
    with running(*command, core=GATEWAY_CORE) as process:
        url = f"http://127.0.0.1:{port}"
        await_ready(url, process)
        yield url, process.pid


if __name__ == "__main__":
    sys.exit(main())
