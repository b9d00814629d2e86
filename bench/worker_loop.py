"""The Python of one step of a worker: take in, plan, hand out; with the fake model, whose own time is apart.

    python -m bench.worker_loop

Aims (issue 4): under 2 ms at 64 slots, under 8 ms at 1000. Messages are decoded and encoded, but cross no socket:
`bench.link` has that.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_worker.core.admission import admit
from asr_worker.core.arrivals import join_audio
from asr_worker.core.handshake import Identity
from asr_worker.core.pool import Pool
from asr_worker.core.sessions import Outgoing
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_speech import FakeSettings
from bench.report import Report, median, quantile
from shared.config import WorkerConfig
from shared.lone_frames import is_lone_frame
from shared.messages import PROTOCOL_VERSION, AudioBlock, Hello, Open, Ready, SessionKind
from shared.units import FRAME_SAMPLES, Epoch, FrameIndex, SessionId
from shared.wire import decode_to_worker, encode

LIMIT = "vectorised numpy over active rows and one message for each gateway: no Python for each slot"
AIMS_MS = {64: 2.0, 1000: 8.0}
PHASES = ("take_in", "plan", "model", "hand_out")


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", nargs="+", type=int, default=[64, 1000])
    parser.add_argument("--active", type=int, help="sessions, if fewer than slots")
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--blocks", nargs="+", choices=("one", "each"), default=["one", "each"],
        help="how audio comes: one block of each gateway for a step, or each frame in a message of its own",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="write the result to bench/results/")
    options = parser.parse_args(arguments)
    report = Report("worker_loop", LIMIT, {"gateways": options.gateways, "steps": options.steps})
    rows = [
        measure(n, min(options.active or n, n), options.gateways, options.steps, blocks)
        for n in options.slots
        for blocks in options.blocks
    ]
    report.table(rows)
    report.finish(keep=options.keep)
    return 0


def measure(n_slots: int, n_sessions: int, n_gateways: int, n_steps: int, blocks: str) -> dict[str, Any]:
    """Return one line of the table: CPU milliseconds of each phase, medians."""
    worker = Worker(n_slots, n_sessions, n_gateways, is_split=blocks == "each")
    phases: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for _ in range(n_steps):
        for phase, spent_ms in zip(PHASES, worker.step(), strict=True):
            phases[phase].append(spent_ms)
    ours = [sum(step) for step in zip(phases["take_in"], phases["plan"], phases["hand_out"], strict=True)]
    return {
        "slots": n_slots,
        "sessions": n_sessions,
        "blocks": blocks,
        "take_in_ms": median(phases["take_in"]),
        "plan_ms": median(phases["plan"]),
        "hand_out_ms": median(phases["hand_out"]),
        "ours_ms": median(ours),
        "ours_p99_ms": quantile(ours, 0.99),
        "aim_ms": AIMS_MS.get(n_slots) if n_slots == n_sessions else None,
        "fake_model_ms": median(phases["model"]),
    }


class Worker:
    """A pool, the fake model, and gateways that send one frame of every session for each step.

    A gateway that is not busy sends a frame as soon as it is complete: ``is_split``.
    """

    def __init__(self, n_slots: int, n_sessions: int, n_gateways: int, *, is_split: bool = False) -> None:
        self._is_split = is_split
        # Codebooks as in the published model: they travel with each step.
        self._model = FakeModel(FakeSettings(n_slots=n_slots, n_codebooks=32))
        self._pool = Pool(
            facts=self._model.facts,
            identity=Identity(worker="wk:bench", module="bench"),
            config=WorkerConfig(),
            admission=admit(self._model.facts, WorkerConfig()),
            detokenize=self._model.detokenize,
        )
        self._frame = 0
        self._gateways = [b"gw:%d" % i for i in range(n_gateways)]
        self._sessions = [np.arange(i, n_sessions, n_gateways, dtype=np.int64) + 1 for i in range(n_gateways)]
        random = np.random.default_rng(0)
        # Speech and silence take turns of 0.8 s, so that words come about as they do in a conversation.
        self._loud = np.repeat(random.random((10, n_sessions)) < 0.6, 10, axis=0)
        self._pcm = random.uniform(-0.3, 0.3, (n_sessions, FRAME_SAMPLES)).astype(np.float32)
        for gateway, sessions in zip(self._gateways, self._sessions, strict=True):
            self._pool.handle(gateway, Hello(version=PROTOCOL_VERSION, gateway="bench"), 0.0)
            for session in sessions.tolist():
                opening = Open(
                    session=SessionId(session), epoch=Epoch(1), kind=SessionKind.LIVE, first_frame=FrameIndex(0)
                )
                self._pool.handle(gateway, opening, 0.0)
        assert any(isinstance(message, Ready) for _, message in self._pool.settle()) or self._pool.n_used == n_sessions

    def step(self) -> tuple[float, ...]:
        """Run one step; return the CPU milliseconds of each phase."""
        arrived = self._arrivals()
        now = 0.08 * self._frame
        marks = [time.process_time()]
        replies: list[Outgoing] = []
        for gateway, message in join_audio(
            (gateway, parts if is_lone_frame(parts) else decode_to_worker(parts)) for gateway, parts in arrived
        ):
            replies += self._pool.handle(gateway, message, now)
        marks.append(time.process_time())
        replies += self._pool.settle()
        plan = self._pool.plan()
        assert plan is not None
        marks.append(time.process_time())
        self._model.launch(plan)
        result = self._model.collect()
        marks.append(time.process_time())
        replies += self._pool.spread(result, 0.01)
        sent = [encode(message) for _, message in replies]
        marks.append(time.process_time())
        assert sent
        self._frame += 1
        return tuple(1e3 * (later - earlier) for earlier, later in pairwise(marks))

    def _arrivals(self) -> list[tuple[bytes, list[bytes]]]:
        loud = self._loud[self._frame % len(self._loud)]
        arrivals = []
        for gateway, sessions in self._senders():
            block = AudioBlock(
                sessions=sessions,
                epochs=np.ones(len(sessions), np.int32),
                frames=np.full(len(sessions), self._frame, np.int64),
                pcm=self._pcm[sessions - 1] * loud[sessions - 1, None],
            )
            parts = [bytes(part) for part in encode(block)]
            arrivals.append((gateway, parts))
        return arrivals

    def _senders(self) -> Iterator[tuple[bytes, NDArray[np.int64]]]:
        for gateway, sessions in zip(self._gateways, self._sessions, strict=True):
            for some in sessions[:, None] if self._is_split else [sessions]:
                yield gateway, some


if __name__ == "__main__":
    sys.exit(main())
