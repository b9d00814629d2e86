"""What a worker counts: moshi-server's step histogram under its own name, ours beside it as ``asr_worker_...``.

One object for each process, with a registry of its own. It is written by the loop's thread and read by whoever serves
``--metrics-port``.
"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from asr_worker.core.admission import Admission, Timing
from shared.exposition import render
from shared.units import FRAME_RATE

_MOSHI_BUCKETS_S: Final = (0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08)
_LATE_BUCKETS_S: Final = (0.1, 0.12, 0.16, 0.24, 0.4, 0.8, 1.6)
STEP_BUCKETS_S: Final = _MOSHI_BUCKETS_S + _LATE_BUCKETS_S
"""moshi-server's, which end where a step begins to be too slow, and ours for how much too slow."""


class WorkerMetrics:
    """The metrics of one worker process. Counts never go down; gauges say how it is now."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"asr_worker_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"asr_worker_{name}", text, registry=registry)

        self._step_duration = Histogram(
            "asr_model_step_duration",
            "ASR model step duration distribution.",
            buckets=STEP_BUCKETS_S,
            registry=registry,
        )
        self._steps = counter("steps", "Model steps.")
        self._late_steps = counter("late_steps", "Model steps that took longer than one frame of audio lasts.")
        self._frames = counter("frames", "Frames of audio stepped, silence included.")
        self._step_lag = gauge(
            "step_lag_seconds", "How long the oldest waiting frame of a live session has waited for its step."
        )
        self._used = gauge("slots_used", "Slots that a session holds.")
        self._free = gauge("slots_free", "Slots that a new session may have.")
        self._admitted = gauge("sessions_admitted", "Sessions that the worker admits at once.")
        self._measured = gauge(
            "sessions_measured", "Sessions whose step ends within 60 ms, as timed at start-up; -1: not timed."
        )
        self._start_step = Gauge(
            "asr_worker_start_step_seconds",
            "99th percentile of a step with full caches, as timed at start-up, by active slots.",
            ("active",),
            registry=registry,
        )
        self._words = counter("words", "Words recognised.")
        self._evictions = counter("evictions", "Sessions that the worker ended itself, by error code.", "code")
        self._rejections = counter("rejections", "Sessions that got no slot, by reason.", "reason")
        self._link_errors = counter("link_errors", "Messages of gateways that could not be understood.")
        self._results_dropped = counter("results_dropped", "Messages to gateways that could not be sent.")
        self._gateways = gauge("gateways", "Gateways that have been heard lately.")
        self._token_log_dropped = counter("token_log_dropped", "Steps missing in the token log: disk full or too slow.")

    def step_finished(self, duration_s: float, *, n_frames: int) -> None:
        """Count one model step that took ``duration_s`` and moved ``n_frames`` rows."""
        self._step_duration.observe(duration_s)
        self._steps.inc()
        self._frames.inc(n_frames)
        if duration_s > 1.0 / FRAME_RATE:
            self._late_steps.inc()

    def step_lagged(self, lag_s: float) -> None:
        """Say how long the oldest waiting frame of a live session has waited."""
        self._step_lag.set(lag_s)

    def slots_changed(self, *, used: int, free: int) -> None:
        """Say how many slots are held, and how many may be had."""
        self._used.set(used)
        self._free.set(free)

    def admission_decided(self, admission: Admission, timings: Iterable[Timing]) -> None:
        """Say how many sessions are admitted, and what was timed."""
        self._admitted.set(admission.sessions)
        self._measured.set(-1 if admission.measured is None else admission.measured)
        for timing in timings:
            self._start_step.labels(timing.n_active).set(timing.p99_s)

    def gateways_changed(self, count: int) -> None:
        """Say how many gateways are there."""
        self._gateways.set(count)

    def words_recognised(self, count: int) -> None:
        """Count words."""
        self._words.inc(count)

    def session_evicted(self, code: str) -> None:
        """Count a session that the worker ended; ``code`` is an error's stable code."""
        self._evictions.labels(code).inc()

    def session_rejected(self, reason: str) -> None:
        """Count a session that got no slot; ``reason`` is one of ``shared.messages.REJECT_*``."""
        self._rejections.labels(reason).inc()

    def link_message_refused(self) -> None:
        """Count a message that is none of the protocol."""
        self._link_errors.inc()

    def result_dropped(self) -> None:
        """Count a message that a gateway's full queue, or its absence, did not take."""
        self._results_dropped.inc()

    def token_log_dropped(self, n_steps: int) -> None:
        """Count steps that the token log lacks."""
        self._token_log_dropped.inc(n_steps)

    def render(self) -> bytes:
        """Return the text that Prometheus reads (``shared.exposition.CONTENT_TYPE``)."""
        return render(self._registry.collect())
