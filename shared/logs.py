"""Sets up logging for one process: structlog in, lines out, nothing secret in them.

    log.info(event, ...)  --.                                  .--> the terminal, readable; else one JSON object a line
    the libraries' logging --'--> redact -> render -> queue -> thread
                                                               '--> {log_dir}/log.{instance_name}, JSON, daily

Whoever logs never waits: a thread writes. The queue is bounded; lines that find it full are dropped and counted.
The event names are in ``log_events.py``.
"""

import contextlib
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

import structlog

from shared.daily_file import DailyFile
from shared.errors import ConfigError
from shared.log_events import LOG_LINES_DROPPED

LEVELS: Final[Mapping[str, int]] = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL,  # which nothing of ours is
}
"""What ``--log`` takes: moshi-server's words and Python's."""

REDACTED: Final = "[redacted]"
_QUEUE_LINES: Final = 8_192
_STOP_WITHIN_S: Final = 5.0
# Shorter keys are found inside too many innocent words; a field's name gives them away anyway.
_SEARCHED_SECRET_CHARS: Final = 6
_SECRET_FIELDS: Final = frozenset({
    "api_key", "auth_id", "authorization", "authorized_ids", "cookie", "hf_token", "key", "keys", "kyutai_api_key",
    "password", "query", "query_string", "secret", "token",
    "pcm", "text", "transcript", "word", "words",
})  # fmt: skip
_SECRET_QUERY: Final = re.compile(r"(auth_id=|kyutai-api-key[=:]\s*)[^&\s\"']+", re.IGNORECASE)


@contextlib.contextmanager
def open_logs(
    *,
    process: str,
    log_dir: Path,
    instance_name: str,
    level: str = "info",
    silent: bool = False,
    secrets: Sequence[str] = (),
    stream: TextIO | None = None,
) -> Iterator[None]:
    """Send every log line of this process where it belongs, until the block is left.

    Args:
        process: bound to every line, as is known from the start: ``gateway``, ``worker``.
        log_dir: made if missing; the file is ``log.{instance_name}``.
        instance_name: from the configuration.
        level: one of ``LEVELS``.
        silent: write to the file only.
        secrets: keys of clients, which never appear in a line wherever they come from.
        stream: standard error unless given.

    Raises:
        ConfigError: the log file cannot be opened.
    """
    path = log_dir / f"log.{instance_name}"
    try:
        file = DailyFile(path)
    except OSError as error:
        message = f"log_dir: {path} cannot be written: {error.strerror}"
        raise ConfigError(message) from error
    shown = None if silent else stream or sys.stderr
    writer = _Writer(file, shown)
    outlet = _Outlet(writer, readable=shown is not None and shown.isatty(), process=process)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,  # without local variables: they may hold what a client said
            Redactor(secrets),
            outlet,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        cache_logger_on_first_use=False,
    )
    bridge = _LibraryBridge()
    root = logging.getLogger()
    before = root.level
    root.addHandler(bridge)
    root.setLevel(max(LEVELS[level], logging.INFO))
    try:
        yield
    finally:
        root.removeHandler(bridge)
        root.setLevel(before)
        writer.close()
        structlog.reset_defaults()


def takes_colours(environ: Mapping[str, str]) -> bool:
    """Return whether the user's terminal understands colours, and the user wants them (no-color.org)."""
    return not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


class Redactor:
    """A structlog processor that takes out secrets and what clients said: by field name, and known keys anywhere."""

    def __init__(self, secrets: Sequence[str]) -> None:
        long = sorted((s for s in secrets if len(s) >= _SEARCHED_SECRET_CHARS), key=len, reverse=True)
        self._known = re.compile("|".join(re.escape(secret) for secret in long)) if long else None

    def __call__(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return ``event`` fit to be written."""
        return {str(key): self._clean(key, value) for key, value in event.items()}

    def _clean(self, key: object, value: object) -> object:
        match value:
            case None | bool() | int() | float():
                return value
            case _ if str(key).lower().replace("-", "_") in _SECRET_FIELDS:
                return REDACTED
            case Mapping():
                return {str(inner): self._clean(inner, item) for inner, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self._clean("", item) for item in value]
            case _:
                text = _SECRET_QUERY.sub(rf"\g<1>{REDACTED}", str(value))
                return self._known.sub(REDACTED, text) if self._known else text


class _Outlet:
    """The last processor: renders the line twice, gives it to the writer, and ends structlog's own way."""

    def __init__(self, writer: "_Writer", *, readable: bool, process: str) -> None:
        self._writer = writer
        self._process = process
        self._as_json = structlog.processors.JSONRenderer(ensure_ascii=False)
        self._as_text = structlog.dev.ConsoleRenderer(
            colors=takes_colours(os.environ), exception_formatter=structlog.dev.plain_traceback
        )
        self._readable = readable

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        first = ("timestamp", "level", "event")
        ordered = {key: event[key] for key in first} | {"process": self._process}
        ordered |= {key: value for key, value in event.items() if key not in first}
        line = str(self._as_json(logger, method, dict(ordered)))
        self._writer.put(line, self._as_text(logger, method, ordered) if self._readable else line)
        raise structlog.DropEvent


class _Writer:
    """A thread that writes lines, so that a slow disk or terminal delays nobody."""

    def __init__(self, file: DailyFile, stream: TextIO | None) -> None:
        self._file = file
        self._stream = stream
        self._lines: queue.Queue[tuple[str, str] | None] = queue.Queue(maxsize=_QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def put(self, line: str, shown: str) -> None:
        """Queue one line for the file and for the stream; never waits."""
        try:
            self._lines.put_nowait((line, shown))
        except queue.Full:
            self._dropped += 1

    def close(self) -> None:
        """Write what is queued, within a deadline, and close the file."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=_STOP_WITHIN_S)
        self._thread.join(_STOP_WITHIN_S)
        if not self._thread.is_alive():
            self._file.close()

    def _run(self) -> None:
        while (item := self._lines.get()) is not None:
            line, shown = item
            # A full disk or a closed terminal costs log lines, never a session.
            with contextlib.suppress(OSError, ValueError):
                self._file.write(line)
            if self._stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    self._stream.write(shown + "\n")
                    self._stream.flush()
            if self._dropped and self._lines.empty():
                lost, self._dropped = self._dropped, 0
                structlog.get_logger().warning(LOG_LINES_DROPPED, count=lost)


class _LibraryBridge(logging.Handler):
    """Hands what libraries log through the standard module to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger().bind(logger=record.name)
        level = min(
            max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL
        )  # structlog knows no levels between
        logger.log(level, record.getMessage(), exc_info=record.exc_info or None)
