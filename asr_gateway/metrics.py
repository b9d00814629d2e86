"""What a gateway counts: moshi-server's names for connections, ours beside them as ``asr_gateway_...``.

One object for each process, with a registry of its own. Labels take few values: error codes, worker names, hashes of
the configured keys; nothing that a client can invent.
"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from shared.errors import NoFreeSlotError, RestartingError, SlowConsumerError, WorkerLostError
from shared.exposition import render

STEPS_BUCKETS: Final = (2, 25, 125, 250, 500, 750, 1125, 1500, 2250, 3000, 4500)
"""moshi-server's, from less than a fifth of a second to six minutes."""

KINDS: Final = ("live", "file")
DONE: Final = "done"
"""Code of sessions that ended without an error."""
REFUSALS: Final = (NoFreeSlotError.code, RestartingError.code)
ENDS: Final = (DONE, WorkerLostError.code, RestartingError.code, SlowConsumerError.code)
"""Codes that alarms are set on: counted from 0, for a series that begins at 1 is no increase to Prometheus."""

LOST, RESTART = CAUSES = ("lost", "restart")
"""Why a session leaves its worker."""

LAG_BUCKETS_S: Final = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class GatewayMetrics:
    """The metrics of one gateway process. Counts never go down; gauges say how it is now."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"asr_gateway_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"asr_gateway_{name}", text, labels, registry=registry)

        connect = Counter("asr_connect", "Number of connections to the asr.", ["handler"], registry=registry)
        channels = "Number of open channels (users currently connected)."
        self._connect = connect.labels("all")
        self._open_channels = Gauge("asr_open_channels", channels, ["handler"], registry=registry).labels("all")
        self._num_steps = Histogram(
            "asr_connection_num_steps",
            "ASR model, distribution of number of steps for a connection.",
            buckets=STEPS_BUCKETS,
            registry=registry,
        )
        self._opened = counter("sessions_opened", "Sessions that got a slot, by kind (live, file).", "kind")
        self._closed = counter(
            "sessions_closed", "Sessions that ended, by kind and error code (done: none).", "kind", "code"
        )
        self._refused = counter(
            "sessions_refused", "Sessions and files that never got a slot, by kind and error code.", "kind", "code"
        )
        self._moved = counter(
            "sessions_moved",
            "Sessions that left their worker to go on, by kind and cause (lost, restart).",
            "kind",
            "cause",
        )
        for kind in KINDS:
            self._opened.labels(kind)
            for cause in CAUSES:
                self._moved.labels(kind, cause)
            for code in ENDS:
                self._closed.labels(kind, code)
            for code in REFUSALS:
                self._refused.labels(kind, code)
        self._audio = counter("audio_seconds", "Seconds of audio received, by hash of the client's key.", "key")
        self._words = counter("words", "Words sent to clients.")
        self._bytes_in = counter("received_bytes", "Bytes received from clients.")
        self._bytes_out = counter("sent_bytes", "Bytes sent to clients.")
        self._posts = counter("post_requests", "POST requests answered, by HTTP status.", "status")
        # What every client adds to once a second is added up here first, and counted when somebody looks.
        self._new_audio_s: dict[str, float] = {}
        self._new_words = self._new_bytes_in = self._new_bytes_out = 0
        self._queue = gauge("file_queue_length", "Files that wait for a slot.")
        self._link = counter("link_messages", "Messages on the links to workers, by direction (in, out).", "direction")
        self._lag = Histogram(
            "asr_gateway_loop_lag_seconds",
            "How late the event loop ran what was due.",
            buckets=LAG_BUCKETS_S,
            registry=registry,
        )
        self._worker_up = gauge("worker_up", "1 while the worker is heard, else 0.", "worker")
        self._worker_used = gauge("worker_slots_used", "Slots in use, as the worker last said.", "worker")
        self._worker_free = gauge("worker_slots_free", "Slots to be had, as the worker last said.", "worker")

    def connected(self) -> None:
        """Count a WebSocket connection, one that is refused for want of a slot included."""
        self._connect.inc()

    def session_opened(self, kind: str) -> None:
        """Count a session that got a slot; ``kind`` is ``live`` or ``file``."""
        self._open_channels.inc()
        self._opened.labels(kind).inc()

    def session_moved(self, kind: str, *, cause: str) -> None:
        """Count a session whose worker is lost, or restarts, and that waits for another."""
        self._moved.labels(kind, cause).inc()

    def session_closed(self, kind: str, *, code: str, n_steps: int) -> None:
        """Count the end of a session that had been opened; ``code`` is an error's stable code, or ``done``."""
        self._open_channels.dec()
        self._num_steps.observe(n_steps)
        self._closed.labels(kind, code).inc()

    def session_refused(self, kind: str, *, code: str) -> None:
        """Count a session that ended before it had a slot, or a file that was refused before it asked for one."""
        self._refused.labels(kind, code).inc()

    def audio_received(self, seconds: float, *, key: str) -> None:
        """Count decoded audio; ``key`` is ``asr_gateway.core.key_hash.key_hash`` of the client's key."""
        self._new_audio_s[key] = self._new_audio_s.get(key, 0.0) + seconds

    def words_sent(self, count: int) -> None:
        """Count words."""
        self._new_words += count

    def bytes_received(self, count: int) -> None:
        """Count bytes of messages and bodies from clients."""
        self._new_bytes_in += count

    def bytes_sent(self, count: int) -> None:
        """Count bytes of messages and bodies to clients."""
        self._new_bytes_out += count

    def post_answered(self, status: int) -> None:
        """Count an answered POST request."""
        self._posts.labels(str(status)).inc()

    def file_queue_changed(self, length: int) -> None:
        """Say how many files wait."""
        self._queue.set(length)

    def link_received(self, count: int = 1) -> None:
        """Count messages from workers."""
        self._link.labels("in").inc(count)

    def link_sent(self, count: int = 1) -> None:
        """Count messages to workers."""
        self._link.labels("out").inc(count)

    def loop_lagged(self, lag_s: float) -> None:
        """Count one measurement of the event loop's lateness."""
        self._lag.observe(lag_s)

    def worker_heard(self, worker: str, *, used: int, free: int) -> None:
        """Say what a worker's last Load said."""
        self._worker_up.labels(worker).set(1)
        self._worker_used.labels(worker).set(used)
        self._worker_free.labels(worker).set(free)

    def worker_lost(self, worker: str) -> None:
        """Say that a worker is not heard, yet or any more; it has no slots then."""
        self._worker_up.labels(worker).set(0)
        self._worker_used.labels(worker).set(0)
        self._worker_free.labels(worker).set(0)

    def worker_forgotten(self, worker: str) -> None:
        """Drop the series of a worker that is no longer configured or discovered."""
        for gauge in (self._worker_up, self._worker_used, self._worker_free):
            gauge.remove(worker)

    def render(self) -> bytes:
        """Return the text that Prometheus reads (``shared.exposition.CONTENT_TYPE``)."""
        self._count_new()
        return render(self._registry.collect())

    def _count_new(self) -> None:
        for key, seconds in self._new_audio_s.items():
            self._audio.labels(key).inc(seconds)
        self._new_audio_s.clear()
        self._words.inc(self._new_words)
        self._bytes_in.inc(self._new_bytes_in)
        self._bytes_out.inc(self._new_bytes_out)
        self._new_words = self._new_bytes_in = self._new_bytes_out = 0
