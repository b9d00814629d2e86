"""How long a client waits for a Step when its worker is lost: killed, halted or stopped.

    python -m bench.moves [--losses kill halt stop] [--sessions 60] [--config FILE]

A gateway and two workers, each with room for all. A third of the way through the worker with the lower number is lost;
its sessions go on with the other one, which first repeats the last ``replay_s`` of each. What is noted is each
session's largest lag of a frame: from when its last sample was due to be sent to its Step. Sessions of the other
worker wait a little, too, while it repeats steps; ``other`` is theirs (those with the smaller lags, as many as did not
move).

Aim (issue 2, reliability): 99 of 100 lost sessions wait less than 3 s.
"""

import argparse
import os
import signal
import sys
import threading
import time
import urllib.request
from typing import Any, Final

from asr_gateway.metrics import CAUSES
from bench.clients import Load, Session, run_clients
from bench.processes import PATH, Service, service
from bench.report import Report, median, quantile
from shared.units import FRAME_RATE

LIMIT = (
    "a closed connection is noticed at once, a halted worker when its deadline has passed; then one step for each frame"
)
_SIGNALS: Final = {"kill": signal.SIGKILL, "halt": signal.SIGSTOP, "stop": signal.SIGTERM}


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", nargs="+", choices=tuple(_SIGNALS), default=["kill", "halt", "stop"])
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--step-ms", type=float, default=5.0, help="of the fake model")
    parser.add_argument("--config", help="a model instead of the fake one")
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("moves", LIMIT, {k: str(v) for k, v in vars(options).items()})
    report.table([measure(loss, options) for loss in options.losses])
    report.finish(keep=options.keep)
    return 0


def measure(loss: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return one line of the table."""
    fake = ["--model", "fake", "--fake-slots", str(options.sessions), "--fake-step-ms", str(options.step_ms)]
    flags = ["--config", options.config] if options.config else fake
    gateway_flags = ["--config", options.config] if options.config else []
    with service(flags, gateway_flags, n_workers=2) as ours:
        lost = ours.worker_pids[0]
        loser = threading.Thread(target=lose, args=(ours, loss, options))
        load = Load(
            url=ours.url.replace("http", "ws") + PATH,
            key="public_token" if options.config else "",
            n_clients=options.sessions,
            packing="float80",
            seconds=options.seconds,
        )
        loser.start()
        sessions = run_clients(load, 1)
        loser.join()
        moved_sessions = sum(
            series(ours.url, f'asr_gateway_sessions_moved_total{{kind="live",cause="{cause}"}}') for cause in CAUSES
        )
        if loss == "halt":
            os.kill(lost, signal.SIGCONT)
    waits_s = sorted((max(session.lags_s, default=float("inf")) for session in sessions), reverse=True)
    moved, others = waits_s[: int(moved_sessions)], waits_s[int(moved_sessions) :]
    return {
        "loss": loss,
        "sessions": len(sessions),
        "moved": moved_sessions,
        "wait_p50_s": median(moved),
        "wait_p99_s": quantile(moved, 0.99),
        "other_p50_s": median(others),
        "other_p99_s": quantile(others, 0.99),
        "frames_missing": sum(_missing(session, options.seconds) for session in sessions),
        "errors": sum(session.error is not None for session in sessions),
    }


def lose(ours: Service, loss: str, options: argparse.Namespace) -> None:
    """Lose a worker when all sessions have been open for a third of their time."""
    while series(ours.url, 'asr_open_channels{handler="all"}') < options.sessions:
        time.sleep(0.05)
    time.sleep(options.seconds / 3)
    os.kill(ours.worker_pids[0], _SIGNALS[loss])


def series(url: str, name: str) -> float:
    """Return what a server's metrics say of one series; 0 if nothing."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), 0.0)


def _missing(session: Session, seconds: float) -> int:
    return max(0, round(seconds * FRAME_RATE) - len(session.lags_s))


if __name__ == "__main__":
    sys.exit(main())
