"""Puts one worker process together: settings, model, pool, link, loop; and takes it apart again.

    settings ─► logs ─► metrics port ─► model loaded and warm ─► link bound ─► loop ─► drained on SIGTERM

Gateways can connect only once the model is warm, so whoever is welcomed is served.
"""

import contextlib
import gc
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Final

import structlog

from asr_worker.config import WorkerSettings, read_settings
from asr_worker.core.admission import Admission
from asr_worker.core.handshake import Identity
from asr_worker.core.model import AsrModel, ModelFacts
from asr_worker.core.pcm import ring_bytes
from asr_worker.core.pool import Pool
from asr_worker.core.tokens import TokenRecorder
from asr_worker.io.link import Link, check_free
from asr_worker.io.loop import Loop, TokenTap
from asr_worker.io.rehearsal import warm_up
from asr_worker.io.status_server import Status, StatusServer
from asr_worker.io.token_log import TokenLog, queue_length
from asr_worker.metrics import WorkerMetrics
from asr_worker.model.fake_speech import PAD_CODE
from asr_worker.start import decide_admission, load, measure
from shared.errors import AsrError, ConfigError, ModelFaultError
from shared.log_events import (
    CONFIG_LOADED,
    CONFIG_WARNING_FOUND,
    LISTENING_STARTED,
    MODEL_WARMED_UP,
    PROCESS_STARTED,
    PROCESS_STOPPED,
    UNEXPECTED_ERROR_CAUGHT,
)
from shared.logs import open_logs

EXIT_WRONG_SETTINGS: Final = 1
EXIT_UNEXPECTED: Final = 3
"""A mistake of ours; the log has it."""
EXIT_MODEL_FAULT: Final = 70
"""The device can no longer be trusted (EX_SOFTWARE). A supervisor starts the worker again."""


class UnexpectedError(Exception):
    """A mistake of ours; it is in the log."""


class Process:
    """What signals and the metrics port reach of a worker, whatever stage it is in."""

    def __init__(self) -> None:
        self.loop: Loop | None = None

    def is_ready(self) -> bool:
        """Return whether the worker admits sessions."""
        return self.loop is not None and self.loop.is_ready()

    def is_stuck(self) -> bool:
        """Return whether the worker will never step again. It is not while it loads, however long that takes."""
        return self.loop is not None and self.loop.is_stuck()

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Handle a signal: drain; while the model still loads, just end."""
        if self.loop is None:
            sys.exit(0)
        self.loop.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one worker until a signal ends it, and return the exit status."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments, os.environ)
        if settings.is_measuring:
            measure(settings)
            return 0
        with open_logs(
            process="worker",
            log_dir=settings.log_dir,
            instance_name=settings.instance_name,
            level=settings.log_level,
            silent=settings.is_silent,
            secrets=settings.secrets,
        ):
            try:
                run(settings)
            except (AsrError, ModuleNotFoundError):
                raise
            except Exception as error:
                structlog.get_logger().exception(UNEXPECTED_ERROR_CAUGHT)
                raise UnexpectedError from error
    except ModelFaultError as error:
        print(f"asr-worker: {error}", file=sys.stderr)  # noqa: T201  (the terminal is where a command complains)
        return EXIT_MODEL_FAULT
    except AsrError as error:
        print("\n".join(f"asr-worker: {line}" for line in str(error).splitlines()), file=sys.stderr)  # noqa: T201  (as above)
        return EXIT_WRONG_SETTINGS
    except UnexpectedError:
        return EXIT_UNEXPECTED
    return 0


def run(settings: WorkerSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ConfigError: settings, files or addresses are wrong.
        ModelFaultError: the device failed.
    """
    log = structlog.get_logger()
    log.info(CONFIG_LOADED, module=settings.module_name, source=str(settings.source), worker=str(settings.worker))
    for warning in settings.warnings:
        log.warning(CONFIG_WARNING_FOUND, warning=warning)
    log.info(PROCESS_STARTED, pid=os.getpid(), version=version("asr-streaming"))
    metrics, process = WorkerMetrics(), Process()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_signals(process))
        if settings.metrics_port is not None:
            status = Status(metrics=metrics.render, is_ready=process.is_ready, is_stuck=process.is_stuck)
            server = StatusServer(status, host=settings.metrics_host, port=settings.metrics_port)
            stack.enter_context(server)
            log.info(LISTENING_STARTED, metrics=f"http://{settings.metrics_host}:{server.port}/metrics")
        # Loading may take half a minute: an address that is taken is said before.
        check_free(settings.bind)
        model = load(settings)
        step_s = warm_up(model)
        log.info(MODEL_WARMED_UP, step_ms=round(1e3 * step_s, 3))
        admission = decide_admission(model, settings.worker, metrics)
        pool = _pool(settings, model, admission)
        pool.note_warm_up(step_s)
        tap = _token_tap(settings, model.facts, metrics, stack)
        link = stack.enter_context(Link(gateway_timeout_s=settings.worker.gateway_timeout_s))
        endpoint = link.bind(settings.bind)
        process.loop = Loop(
            pool=pool, model=model, link=link, metrics=metrics, drain_s=settings.worker.drain_s, tap=tap
        )
        log.info(LISTENING_STARTED, endpoint=endpoint, sessions=admission.sessions)
        if settings.announce is not None:
            _announce(settings.announce, endpoint)
        # What is there now stays: no collection needs to look at it again, in the middle of a step.
        gc.collect()
        gc.freeze()
        process.loop.run()
    log.info(PROCESS_STOPPED)


def _pool(settings: WorkerSettings, model: AsrModel, admission: Admission) -> Pool:
    """Make the pool.

    Raises:
        ConfigError: there is no memory for the audio that may wait in it.
    """
    try:
        return Pool(
            facts=model.facts,
            identity=Identity(worker=_incarnation(), module=settings.module_name),
            config=settings.worker,
            admission=admission,
            detokenize=model.detokenize,
        )
    except MemoryError as error:
        n_slots, window = model.facts.n_slots, settings.worker.window_frames
        message = (
            f"window_frames = {window} with a batch_size of {n_slots}: there is no memory for the"
            f" {ring_bytes(n_slots, window)} bytes of audio that gateways may send ahead; one of them must be less"
        )
        raise ConfigError(message) from error


def _announce(path: Path, endpoint: str) -> None:
    try:
        unfinished = path.with_name(path.name + ".part")  # a reader never sees half a line
        unfinished.write_text(endpoint + "\n")
        unfinished.replace(path)
    except (OSError, ValueError) as error:  # ValueError: "." has no name
        message = f"--announce {path}: cannot be written: {getattr(error, 'strerror', None) or 'it names no file'}"
        raise ConfigError(message) from error


def _token_tap(
    settings: WorkerSettings, facts: ModelFacts, metrics: WorkerMetrics, stack: contextlib.ExitStack
) -> TokenTap | None:
    module = settings.module
    if module is None or module.log_frequency_s is None:
        return None
    lm = module.model
    start_token = lm.text_in_vocab_size - 1 if settings.fake is None else settings.fake.start_token
    pad_code = lm.audio_vocab_size - 1 if settings.fake is None else PAD_CODE
    log = TokenLog(
        log_dir=settings.log_dir,
        instance_name=settings.instance_name,
        period_s=module.log_frequency_s,
        started_s=time.time(),
        on_lost=metrics.token_log_dropped,
        max_queued=queue_length(facts.n_slots, facts.n_codebooks),
    )
    recorder = TokenRecorder(
        n_slots=facts.n_slots, n_codebooks=facts.n_codebooks, start_token=start_token, pad_code=pad_code
    )
    return TokenTap(recorder=recorder, log=stack.enter_context(log))


@contextlib.contextmanager
def _signals(process: Process) -> Iterator[None]:
    before = {number: signal.signal(number, process.stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _incarnation() -> str:
    return f"wk:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4()}"
