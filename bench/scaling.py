"""Does the cost follow the work? A step's against active sessions, a session's against workers and against gateways.

    python -m bench.scaling [--parts active workers gateways]

    active     one step of a worker of 64 slots with full caches: the model's and our own CPU time
    workers    real processes: the same live sessions on 1, 2 and 4 workers with the fake model
    gateways   the same through 1, 2 and 4 gateways

CPU time, not wall time: processes that share cores wait for each other, but cost what they cost.
"""

import argparse
import logging
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from asr_worker.config import read_settings
from asr_worker.core.model import AsrModel, StepPlan
from asr_worker.start import load
from bench.capacity import with_slots
from bench.clients import Load, Session, run_clients, steady_lags
from bench.processes import PATH, cpu_s, service
from bench.report import Report, median
from bench.sizes import DEMO
from bench.worker_loop import Worker
from shared.units import FRAME_RATE, FRAME_SAMPLES

LIMIT = "a session costs the same whoever else is there, and an empty slot nothing"
PARTS = ("active", "workers", "gateways")


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--slots", type=int, default=64, help="of the worker in the first part")
    parser.add_argument("--active", nargs="+", type=int, default=[1, 4, 16, 32, 64])
    parser.add_argument("--steps", type=int, default=12, help="of each number of active sessions")
    parser.add_argument("--counts", nargs="+", type=int, default=[1, 2, 4], help="workers, and gateways")
    parser.add_argument("--sessions", type=int, default=24, help="of the other parts")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("scaling", LIMIT, {k: str(v) for k, v in vars(options).items()})
    if "active" in options.parts:
        report.table(active_rows(options))
    if "workers" in options.parts:
        report.table([crowd_row(options, n_workers=n) for n in options.counts])
    if "gateways" in options.parts:
        report.table([crowd_row(options, n_gateways=n) for n in options.counts])
    report.finish(keep=options.keep)
    return 0


def active_rows(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a line for each number of active sessions: neighbours, and scattered over the slots."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        config = with_slots(DEMO / "demo.toml", options.slots, Path(folder))
        demo = load(read_settings(["--config", str(config), "--bind", "ipc://unused", "--device", "cpu"], {}))
        demo.restart(age_frames=max(demo.facts.context_frames, demo.facts.codec_context_frames))
        rows = []
        for n_active in options.active:
            neighbours = np.arange(n_active)
            scattered = np.random.default_rng(0).permutation(options.slots)[:n_active]
            step_ms = model_ms(demo, neighbours, options.steps)
            worker = Worker(options.slots, n_active, 1)
            phases = [worker.step() for _ in range(4 * options.steps)]
            rows.append(
                {
                    "part": "active",
                    "slots": options.slots,
                    "active": n_active,
                    "demo_ms": step_ms,
                    "demo_ms_each": step_ms / n_active,
                    "demo_scattered_ms": model_ms(demo, scattered, options.steps),
                    "worker_python_ms": median([sum(phase) - phase[2] for phase in phases]),
                    "fake_model_ms": median([phase[2] for phase in phases]),
                }
            )
    return rows


def model_ms(model: AsrModel, slots: NDArray[np.int64], n_steps: int) -> float:
    """Return the median CPU milliseconds of a step in which ``slots`` take part."""
    n_slots = model.facts.n_slots
    noise = np.random.default_rng(0).normal(0.0, 0.1, (n_slots, FRAME_SAMPLES)).astype(np.float32)
    plan = StepPlan(pcm=noise, active=np.isin(np.arange(n_slots), slots), reset=np.zeros(n_slots, np.bool_))
    times_ms = []
    for _ in range(n_steps + 1):
        started_s = time.process_time()
        model.launch(plan)
        model.collect()
        times_ms.append(1e3 * (time.process_time() - started_s))
    return median(times_ms[1:])


def crowd_row(options: argparse.Namespace, *, n_workers: int = 1, n_gateways: int = 1) -> dict[str, Any]:
    """Return one line: what the processes spent on the same sessions, for each frame of a session."""
    flags = ["--model", "fake", "--fake-slots", str(options.sessions)]
    with service(flags, n_workers=n_workers, n_gateways=n_gateways) as ours:
        # What a process does once, for its first session, is no session's cost.
        run_split(ours.urls, len(ours.urls) * n_workers, 1.0)
        before = cpu_of(ours.gateway_pids), cpu_of(ours.worker_pids)
        sessions = run_split(ours.urls, options.sessions, options.seconds)
        after = cpu_of(ours.gateway_pids), cpu_of(ours.worker_pids)
    n_frames = sum(len(session.lags_s) for session in sessions)
    gateway_ms, worker_ms = (1e3 * (later - earlier) / n_frames for later, earlier in zip(after, before, strict=True))
    return {
        "part": "workers" if n_workers > 1 else "gateways" if n_gateways > 1 else "one of each",
        "workers": n_workers,
        "gateways": n_gateways,
        "sessions": len(sessions),
        "gateway_ms_a_frame": gateway_ms,
        "worker_ms_a_frame": worker_ms,
        "gateway_core_percent": gateway_ms * FRAME_RATE / 10,
        "worker_core_percent": worker_ms * FRAME_RATE / 10,
        "lag_p50_ms": 1e3 * median(list(steady_lags(sessions, 0.1, 1.0))),
        "errors": sum(session.error is not None for session in sessions),
    }


def run_split(urls: tuple[str, ...], n_sessions: int, seconds: float) -> list[Session]:
    """Run the clients, an equal share of them at each gateway."""
    sessions: list[Session] = []

    def run(i: int, url: str) -> None:
        share = len(range(i, n_sessions, len(urls)))
        load_of_one = Load(
            url=url.replace("http", "ws") + PATH, key="", n_clients=share, packing="float80", seconds=seconds
        )
        sessions.extend(run_clients(load_of_one, 1))

    threads = [threading.Thread(target=run, args=(i, url)) for i, url in enumerate(urls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sessions


def cpu_of(pids: tuple[int, ...]) -> float:
    """Return the CPU seconds of some processes."""
    return sum(cpu_s(pid) for pid in pids)


if __name__ == "__main__":
    sys.exit(main())
