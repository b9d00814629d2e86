"""How many live sessions a server holds in real time: paced clients, more and more of them, until it falls behind.

    python -m bench.capacity                                       a worker with the demo model and a gateway, here
    python -m bench.capacity --fake-step-ms 5 --slots 400          the fake model instead
    python -m bench.capacity --url ws://HOST:PORT/api/asr-streaming --key KEY --sessions 40
                                                                   any server that speaks the protocol: a load test

A trial passes if no session failed, the server's steps end within 80 ms (99 % of them; asked of its ``/metrics``, if it
has any), 99 % of all Steps come within ``--lag`` of their frame, and the lag does not grow from the second to the last
quarter of the trial. Models without pause heads send no Steps: then words tell whether the lag grows. ``--confirm 600``
is the long form: what the search found must hold for ten minutes. Nothing but ``--flush`` needs more of a server than
the Kyutai protocol. Run clients on another machine if the server needs all cores here.
"""

import argparse
import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bench.clients import Load, Session, n_frames_of, run_clients, steady_lags
from bench.packets import PACKINGS
from bench.processes import PATH, cpu_s, service
from bench.report import Report, median, quantile
from bench.sizes import DEMO
from bench.step_times import quantile_s, step_buckets

LIMIT = "a step ends within 80 ms, so no session falls further and further behind"
MAX_GROWTH_S = 0.08
"""Of the median lag, from the second to the last quarter of a trial: one frame."""
MIN_STEPS_SHARE = 0.98
MOST_ELSEWHERE = 10_000
"""Where the search ends that nobody gave an end: a server that is not ours does not say how many slots it has."""
MAX_STEP_S = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What is measured."""

    url: str
    key: str
    metrics_urls: tuple[str, ...]
    spent_s: Callable[[], tuple[float, float]]
    """Tells the CPU seconds of gateway and workers; 0 for somebody else's."""


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    options = parse(arguments)
    shown = {name: str(value) for name, value in vars(options).items() if name != "key"}
    report = Report("capacity", LIMIT, shown)
    rows: list[dict[str, Any]] = []
    with server(options) as target:

        def try_sessions(n: int, seconds: float = options.seconds) -> bool:
            row = trial(n, target, options, seconds)
            rows.append(row)
            sys.stderr.write(f"{n} sessions, {seconds:g} s: {row['verdict']}, lag p99 {row['lag_p99_ms']:.0f} ms\n")
            return bool(row["verdict"] == "holds")

        if options.sessions:
            largest = max([n for n in options.sessions if try_sessions(n)], default=0)
        else:
            largest = search(try_sessions, start=options.start, most=MOST_ELSEWHERE if options.url else options.slots)
        if options.confirm:
            while largest and not try_sessions(largest, options.confirm):
                largest = largest * 9 // 10
    report.table(rows)
    report.note(largest=largest)
    report.finish(keep=options.keep, label=options.label)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server's WebSocket route; default: processes of our own")
    parser.add_argument("--key", default="public_token")
    parser.add_argument("--sessions", nargs="+", type=int, help="try exactly these numbers, instead of searching")
    parser.add_argument("--start", type=int, default=8, help="first number of the search")
    parser.add_argument("--slots", type=int, default=64, help="slots of our own worker")
    parser.add_argument("--fake-step-ms", type=float, help="our own worker with the fake model")
    parser.add_argument("--config", type=Path, help="our own worker with this configuration")
    parser.add_argument("--worker-core", type=int)
    parser.add_argument("--gateway-core", type=int)
    parser.add_argument("--seconds", type=float, default=15.0, help="of one trial")
    parser.add_argument("--confirm", type=float, default=0.0, help="seconds that what was found must hold in the end")
    parser.add_argument("--metrics", help="address of the server's metrics; default: /metrics beside --url")
    parser.add_argument("--lag", type=float, default=0.3, help="seconds that the p99 lag may be")
    parser.add_argument("--packing", choices=PACKINGS, default="float80")
    parser.add_argument("--audio", type=Path, help="24 kHz mono file to send; default: a sample of the demo model")
    parser.add_argument("--processes", type=int, default=1, help="client processes; about one for each 200 sessions")
    parser.add_argument("--flush", action="store_true", help="end each session with our Flush, too")
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    parser.add_argument("--label", default="", help="of the kept result, to tell several of a day apart")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def server(options: argparse.Namespace) -> Iterator[Server]:
    """Yield the server that was named, or one of our own."""
    if options.url:
        parts = urlsplit(options.url)
        url = urlunsplit((parts.scheme.replace("http", "ws"), parts.netloc, parts.path or PATH, parts.query, ""))
        metrics = options.metrics or urlunsplit((parts.scheme.replace("ws", "http"), parts.netloc, "/metrics", "", ""))
        yield Server(url=url, key=options.key, metrics_urls=(metrics,), spent_s=lambda: (0.0, 0.0))
        return
    with tempfile.TemporaryDirectory() as folder:
        gateway_flags: list[str] = []
        if options.fake_step_ms is not None:
            worker_flags = ["--model", "fake", "--fake-slots", str(options.slots)]
            worker_flags += ["--fake-step-ms", str(options.fake_step_ms)]
        else:
            config = with_slots(options.config or DEMO / "demo.toml", options.slots, Path(folder))
            worker_flags = gateway_flags = ["--config", str(config)]
        with service(
            worker_flags, gateway_flags, worker_core=options.worker_core, gateway_core=options.gateway_core
        ) as running:
            yield Server(
                url=running.url.replace("http", "ws") + PATH,
                key=options.key,
                metrics_urls=running.metrics_urls,
                spent_s=lambda: (cpu_s(running.gateway_pid), sum(cpu_s(pid) for pid in running.worker_pids)),
            )


def with_slots(config: Path, n_slots: int, folder: Path) -> Path:
    """Return a copy of a configuration with another ``batch_size``, in ``folder``, which links to its files."""
    for file in config.resolve().parent.iterdir():
        (folder / file.name).symlink_to(file)
    copy = folder / f"bench-{config.name}"
    copy.write_text(re.sub(r"(?m)^batch_size *=.*$", f"batch_size = {n_slots}", config.read_text()))
    return copy


def search(holds: Callable[[int], bool], *, start: int, most: int) -> int:
    """Double until a number fails, then halve the interval until it is a tenth of the number; return what holds."""
    good, n = 0, min(start, most)
    while holds(n):
        good = n
        if n == most:
            return good
        n = min(2 * n, most)
    bad = n
    while bad - good > max(1, bad // 10):
        middle = (good + bad) // 2
        if holds(middle):
            good = middle
        else:
            bad = middle
    return good


def trial(n: int, target: Server, options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """Run ``n`` clients; return one line of the table."""
    load = Load(
        url=target.url,
        key=target.key,
        n_clients=n,
        packing=options.packing,
        seconds=seconds,
        audio=options.audio,
        has_flush=options.flush,
    )
    before, buckets = target.spent_s(), step_buckets(target.metrics_urls)
    sessions = run_clients(load, options.processes)
    gateway_s, worker_s = (after - earlier for after, earlier in zip(target.spent_s(), before, strict=True))
    buckets_after = step_buckets(target.metrics_urls)
    step_p50_s, step_p99_s = (quantile_s(buckets, buckets_after, share) for share in (0.5, 0.99))
    row = summary(load, sessions, options.lag)
    if row["verdict"] == "holds" and step_p99_s is not None and step_p99_s > MAX_STEP_S:
        row["verdict"] = "steps too slow"
    return row | {
        "step_p50_ms": None if step_p50_s is None else 1e3 * step_p50_s,
        "step_p99_ms": None if step_p99_s is None else 1e3 * step_p99_s,
        "gateway_cpu": gateway_s / seconds,
        "worker_cpu": worker_s / seconds,
        "load_average": os.getloadavg()[0],
    }


def summary(load: Load, sessions: list[Session], max_lag_s: float) -> dict[str, Any]:
    """Return what the sessions saw, and whether the server held them."""
    has_steps = any(session.lags_s for session in sessions)
    lags = list(steady_lags(sessions, 0.1, 1.0))
    growth_s = median(list(steady_lags(sessions, 0.75, 1.0))) - median(list(steady_lags(sessions, 0.25, 0.5)))
    errors = [session.error for session in sessions if session.error]
    n_steps = sum(min(len(session.lags_s), n_frames_of(load)) for session in sessions)
    words = [session.first_word_s for session in sessions if session.first_word_s is not None]
    markers = [session.marker_s for session in sessions if session.marker_s is not None]
    flushes = [session.flush_s for session in sessions if session.flush_s is not None]
    if errors:
        verdict = f"{len(errors)} failed: {errors[0]}"
    elif has_steps and n_steps < MIN_STEPS_SHARE * len(sessions) * n_frames_of(load):
        verdict = "Steps are missing"
    elif has_steps and quantile(lags, 0.99) > max_lag_s:
        verdict = "too late"
    elif growth_s > MAX_GROWTH_S:
        verdict = "falls behind"
    else:
        verdict = "holds"
    return {
        "sessions": len(sessions),
        "verdict": verdict,
        "lag_p50_ms": 1e3 * median(lags),
        "lag_p99_ms": 1e3 * quantile(lags, 0.99),
        "growth_ms": 1e3 * growth_s,
        "client_late_p99_ms": 1e3 * quantile([late for session in sessions for late in session.late_s], 0.99),
        "first_word_p50_ms": 1e3 * median(words) if words else None,
        "first_word_p99_ms": 1e3 * quantile(words, 0.99) if words else None,
        "marker_p50_ms": 1e3 * median(markers) if markers else None,
        "marker_p99_ms": 1e3 * quantile(markers, 0.99) if markers else None,
        "flush_p50_ms": 1e3 * median(flushes) if flushes else None,
        "flush_p99_ms": 1e3 * quantile(flushes, 0.99) if flushes else None,
        "words": sum(len(session.word_lags_s) for session in sessions),
    }


if __name__ == "__main__":
    sys.exit(main())
