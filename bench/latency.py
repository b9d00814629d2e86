"""What the service adds to the model's own time: frame complete at the client to its Step back, and Flush to Flushed.

    python -m bench.latency [--step-ms 5] [--loads 0.02 0.5 0.9]

One gateway and one worker with the fake model, whose step takes ``--step-ms`` whatever the batch. A frame waits for the
step that is running (none at idle; a uniform part of a step when they follow each other) and then for its own: both
are taken off, as long as they should be, not as they were (``step_mean_ms``): that timers wake the worker some 0.1 ms
late counts as ours. How late the client itself was is taken off each of its frames. Load is a share of the ``--full``
sessions.

Aims (issue 4): p50 below 3 ms and p99 below 10 ms at half load on two cores.
"""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from bench.clients import Load, run_clients, steady_lags
from bench.processes import PATH, service
from bench.report import Report, median, quantile
from bench.step_times import mean_s, step_total
from shared.units import FRAME_RATE

LIMIT = "two hops on one machine; the step itself, and the step that is running, are the model's"


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=5.0)
    parser.add_argument("--full", type=int, default=200, help="sessions that are called full load")
    parser.add_argument("--loads", nargs="+", type=float, default=[0.005, 0.5, 0.9])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("latency", LIMIT, {k: str(v) for k, v in vars(options).items()})
    flags = ["--model", "fake", "--fake-slots", str(options.full), "--fake-step-ms", str(options.step_ms)]
    with service(flags) as ours:
        url = ours.url.replace("http", "ws") + PATH
        rows = [
            measure(url, ours.metrics_urls, max(1, round(share * options.full)), options) for share in options.loads
        ]
    report.table(rows)
    report.finish(keep=options.keep)
    return 0


def measure(url: str, metrics_urls: Iterable[str], n_sessions: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return one line of the table."""
    load = Load(
        url=url, key="", n_clients=n_sessions, packing="float80", seconds=options.seconds, has_flush=True, spread_s=1.0
    )
    before = step_total(metrics_urls)
    sessions = run_clients(load, 1)
    step_s = mean_s(before, step_total(metrics_urls))
    lags_ms = [1e3 * lag for lag in steady_lags(sessions, 0.1, 1.0)]
    late_ms = [1e3 * late for session in sessions for late in session.late_s]
    # One packet is one frame here.
    for session in sessions:
        session.lags_s = [lag - late for lag, late in zip(session.lags_s, session.late_s, strict=False)]
    own_ms = [1e3 * lag for lag in steady_lags(sessions, 0.1, 1.0)]
    flushes_ms = [1e3 * session.flush_s for session in sessions if session.flush_s is not None]
    # How likely a frame finds a step running: arrivals in one step's time, at most one step at a time.
    busy = min(1.0, n_sessions * FRAME_RATE * options.step_ms / 1e3)
    return {
        "sessions": n_sessions,
        "lag_p50_ms": median(lags_ms),
        "lag_p99_ms": quantile(lags_ms, 0.99),
        "client_late_p50_ms": median(late_ms),
        "client_late_p99_ms": quantile(late_ms, 0.99),
        "step_mean_ms": 1e3 * step_s if step_s is not None else None,
        "added_p50_ms": median(own_ms) - options.step_ms * (1 + busy / 2),
        "added_p99_ms": quantile(own_ms, 0.99) - options.step_ms * (1 + busy),
        "flush_p50_ms": median(flushes_ms),
        "flush_p99_ms": quantile(flushes_ms, 0.99),
        "errors": sum(session.error is not None for session in sessions),
    }


if __name__ == "__main__":
    sys.exit(main())
