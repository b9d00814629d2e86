"""What it costs to encode and decode the link's blocks, beside a plain copy of the same bytes.

python -m bench.wire
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.report import Report
from shared.messages import AudioBlock, EventKind, StepBlock, StepEvent
from shared.units import FRAME_SAMPLES, Epoch, SessionId
from shared.wire import Parts, decode_to_gateway, decode_to_worker, encode

LIMIT = "nothing is computed that a copy of the bytes would not cost"
N_CODEBOOKS, N_HEADS = 32, 4


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 64, 1000])
    parser.add_argument("--seconds", type=float, default=0.2, help="CPU time for each figure")
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("wire", LIMIT, {"rows": options.rows})
    rows: list[dict[str, Any]] = []
    for n in options.rows:
        for name, message, decode in (
            ("AudioBlock", audio_block(n), decode_to_worker),
            ("StepBlock", step_block(n), decode_to_gateway),
        ):
            # As they come from a socket: bytes, not views of our own arrays.
            parts = [bytes(part) for part in encode(message)]
            rows.append(measure(name, n, message, parts, decode, options.seconds))
    report.table(rows)
    report.finish(keep=options.keep)
    return 0


def measure(  # noqa: PLR0917  (one line of the table)
    name: str,
    n: int,
    message: AudioBlock | StepBlock,
    parts: Parts,
    decode: Callable[[Parts], object],
    seconds: float,
) -> dict[str, Any]:
    """Return one line of the table."""
    payload = b"".join(parts)
    encode_us, decode_us = us_of(lambda: encode(message), seconds), us_of(lambda: decode(parts), seconds)
    return {
        "block": name,
        "rows": n,
        "bytes": len(payload),
        "encode_us": encode_us,
        "decode_us": decode_us,
        "copy_us": us_of(lambda: bytearray(payload), seconds),
        "encode_us_per_row": encode_us / n,
        "decode_us_per_row": decode_us / n,
    }


def us_of(run: Callable[[], object], seconds: float) -> float:
    """Return the CPU time of one call in microseconds."""
    n_calls, started_s = 0, time.process_time()
    while (spent_s := time.process_time() - started_s) < seconds:
        for _ in range(10):
            run()
        n_calls += 10
    return 1e6 * spent_s / n_calls


def audio_block(n: int) -> AudioBlock:
    """Return one frame of each of ``n`` sessions."""
    return AudioBlock(
        sessions=np.arange(n, dtype=np.int64) + (1 << 60),
        epochs=np.ones(n, np.int32),
        frames=np.full(n, 1000, np.int64),
        pcm=np.full((n, FRAME_SAMPLES), 0.1, np.float32),
    )


def step_block(n: int) -> StepBlock:
    """Return the results of one step of ``n`` sessions; every tenth has a word, as in lively speech."""
    sessions = np.arange(n, dtype=np.int64) + (1 << 60)
    return StepBlock(
        sessions=sessions,
        epochs=np.ones(n, np.int32),
        frames=np.full(n, 1000, np.int64),
        steps=np.full(n, 1001, np.int64),
        flags=np.zeros(n, np.uint8),
        text=np.full(n, 3, np.int32),
        codes=np.full((n, N_CODEBOOKS), 7, np.uint16),
        pauses=np.full((n, N_HEADS), 0.5, np.float32),
        events=tuple(
            StepEvent(SessionId(int(session)), Epoch(1), EventKind.WORD, time_s=1.0, text="word")
            for session in sessions[::10]
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
