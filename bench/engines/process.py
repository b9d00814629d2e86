"""An engine in a process of its own, so that the published packages can have an environment of their own.

    bench ──one JSON line: {"do": "start" | "run" | ...}──► engine process ──one JSON line──► bench

The bench lets engines take turns, a few steps each, so that whatever else the machine does hits all of them alike.
Nothing but the standard library is imported here: every environment has it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What an engine is to step."""

    folder: str
    """Holds ``lm.safetensors``, ``mimi.safetensors`` and ``tokenizer.model``."""
    model: dict[str, Any]
    """``LmConfig`` as a dict."""
    mimi: dict[str, Any]
    """``MimiConfig`` as a dict."""
    batch: int
    active: int
    """Rows that step; spread over the batch."""
    fill: float
    """Share of the rings that is visible, 0 to 1."""
    dtype: str
    """Of the language model: ``f32`` or ``bf16``."""
    device: str
    threads: int
    kv_cache: str | None = None
    """Number format of our language model's caches; None: its own."""
    cpu_weights: str = "f32"
    """Number format of our language model's weights, on CPU."""
    attention: str = "auto"
    """On CUDA, ours: ``auto`` or ``torch``."""

    def active_rows(self) -> list[int]:
        """Return the rows that step, evenly spread."""
        return [row * self.batch // self.active for row in range(self.active)]


@dataclass(slots=True)
class Times:
    """Milliseconds of each step: on the clock, and of this process's CPU."""

    wall_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def extend(self, other: "Times") -> None:
        """Add the steps of a later turn."""
        self.wall_ms += other.wall_ms
        self.cpu_ms += other.cpu_ms


class Engine(Protocol):
    """Steps a batch of noise. Built from a ``Spec``."""

    def step(self) -> None:
        """Run one step; return when its results are on the host."""
        ...


def serve(build: Callable[[Spec], Engine], versions: dict[str, str]) -> None:
    """Answer the bench's requests until it closes the pipe. For the ``main`` of an engine process."""
    # Packages print what they like; answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine: Engine | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, Any] = versions
        if request["do"] == "start":
            engine = None  # The old one's memory goes before the new one's comes.
            engine = build(Spec(**request["spec"]))
        elif request["do"] == "run":
            assert engine is not None
            answer = asdict(timed(engine.step, request["n"]))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def timed(step: Callable[[], None], n: int) -> Times:
    """Run ``step`` ``n`` times and return how long each took."""
    times = Times()
    for _ in range(n):
        wall, cpu = time.perf_counter(), time.process_time()
        step()
        times.cpu_ms.append(1e3 * (time.process_time() - cpu))
        times.wall_ms.append(1e3 * (time.perf_counter() - wall))
    return times


class EngineProcess:
    """The bench's end of an engine process.

    Args:
        name: what tables call it.
        module: ``bench.engines.…``, run with ``-m``.
        python: the interpreter that has its packages.
        core: the CPU core it is pinned to; None leaves it alone.
    """

    def __init__(self, name: str, module: str, *, python: str = sys.executable, core: int | None = None) -> None:
        self.name = name
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_TORCH_COMPILE": "1"}
        environment.setdefault("OMP_NUM_THREADS", "1")
        self._process = subprocess.Popen(
            [python, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True
        )
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(self._process.pid, {core})
        self.versions: dict[str, str] = self._ask({"do": "versions"})

    def start(self, spec: Spec) -> None:
        """Build the engine that ``run`` will step."""
        self._ask({"do": "start", "spec": asdict(spec)})

    def run(self, n: int) -> Times:
        """Run ``n`` steps."""
        return Times(**self._ask({"do": "run", "n": n}))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            message = f"the engine {self.name!r} died with exit code {self._process.wait()}; its error is above"
            raise RuntimeError(message)
        answer: dict[str, Any] = json.loads(line)
        return answer
