import io
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import structlog

from shared import log_events
from shared.errors import ConfigError
from shared.logs import LEVELS, REDACTED, Redactor, open_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    with io.StringIO() as text:
        yield text


def opened(
    folder: Path, stream: io.StringIO, *, level: str = "info", silent: bool = False
) -> AbstractContextManager[None]:
    return open_logs(
        process="gateway",
        log_dir=folder,
        instance_name="unit",
        level=level,
        silent=silent,
        secrets=("a long secret key",),
        stream=stream,
    )


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_line_goes_to_the_stream_and_to_the_file(tmp_path: Path, stream: io.StringIO) -> None:
    with opened(tmp_path / "logs", stream):
        structlog.get_logger().bind(session=7).info(log_events.SESSION_CLOSED, audio_s=1.5, words=3, why="über\nzwei")

    (line,) = lines(stream.getvalue())
    assert stream.getvalue() == (tmp_path / "logs" / "log.unit").read_text()
    assert str(line.pop("timestamp")).endswith("Z")
    assert list(line.items()) == [
        ("level", "info"),
        ("event", "session_closed"),
        ("process", "gateway"),
        ("session", 7),
        ("audio_s", 1.5),
        ("words", 3),
        ("why", "über\nzwei"),
    ]


def test_a_terminal_gets_readable_lines_and_the_file_json(tmp_path: Path) -> None:
    with Terminal() as terminal:
        with opened(tmp_path, terminal):
            structlog.get_logger().warning(log_events.WORKER_LOST, worker="tcp://a:1")
        shown = terminal.getvalue()

    assert "worker_lost" in shown
    assert "tcp://a:1" in shown
    assert not shown.startswith("{")
    assert lines((tmp_path / "log.unit").read_text())[0]["worker"] == "tcp://a:1"


@pytest.mark.parametrize(
    ("variable", "value", "is_coloured"),
    [("TERM", "xterm", True), ("NO_COLOR", "", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)],
)
def test_a_terminal_gets_colours_unless_the_environment_says_no(
    variable: str,
    value: str,
    is_coloured: bool,  # noqa: FBT001
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, value)
    with Terminal() as terminal:
        with opened(tmp_path, terminal):
            structlog.get_logger().warning(log_events.WORKER_LOST)
        assert ("\x1b[" in terminal.getvalue()) == is_coloured


def test_silent_means_the_file_only(tmp_path: Path, stream: io.StringIO) -> None:
    with opened(tmp_path, stream, silent=True):
        structlog.get_logger().info(log_events.PROCESS_STARTED)

    assert stream.getvalue() == ""
    assert len(lines((tmp_path / "log.unit").read_text())) == 1


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", 4), ("trace", 4), ("info", 3), ("warn", 2), ("warning", 2), ("error", 1), ("off", 0)],
)
def test_the_level_decides_what_is_written(tmp_path: Path, stream: io.StringIO, level: str, expected: int) -> None:
    with opened(tmp_path, stream, level=level):
        logger = structlog.get_logger()
        for say in (logger.debug, logger.info, logger.warning, logger.error):
            say("spoken")

    assert level in LEVELS
    assert len(lines(stream.getvalue())) == expected


def test_what_libraries_log_comes_the_same_way(tmp_path: Path, stream: io.StringIO) -> None:
    with opened(tmp_path, stream):
        logging.getLogger("unit.dependency").warning("slow: %s s", 3)
        logging.getLogger("unit.dependency").log(25, "between two levels")
        logging.getLogger("unit.dependency").debug("not asked for")

    assert [(line["level"], line["logger"], line["event"]) for line in lines(stream.getvalue())] == [
        ("warning", "unit.dependency", "slow: 3 s"),
        ("info", "unit.dependency", "between two levels"),
    ]


def test_an_exception_is_told_without_the_values_of_variables(tmp_path: Path, stream: io.StringIO) -> None:
    with opened(tmp_path, stream):
        transcript = "what " + "the client said"
        try:
            int(transcript[:0])
        except ValueError:
            structlog.get_logger().exception(log_events.UNEXPECTED_ERROR_CAUGHT)

    (line,) = lines(stream.getvalue())
    assert "ValueError: invalid literal" in str(line["exception"])
    assert "what the client said" not in stream.getvalue()


def test_keys_of_clients_appear_nowhere(tmp_path: Path, stream: io.StringIO) -> None:
    with opened(tmp_path, stream):
        logger = structlog.get_logger()
        logger.info("asked", path="/api?auth_id=a%20long%20secret%20key&x=1", headers={"Kyutai-Api-Key": "any value"})
        logger.info("failed with a long secret key inside")
        logging.getLogger("unit").warning("GET /api?auth_id=short HTTP/1.1")
        try:
            raise ConfigError("no such key: a long secret key")  # noqa: EM101, TRY003, TRY301 a message with a key is the point
        except ConfigError:
            logger.exception("refused")

    written = stream.getvalue() + (tmp_path / "log.unit").read_text()
    for secret in ("a long secret key", "a%20long", "any value", "short"):
        assert secret not in written
    assert lines(stream.getvalue())[0]["path"] == f"/api?auth_id={REDACTED}&x=1"


def test_logging_is_as_before_when_the_block_is_left(tmp_path: Path, stream: io.StringIO) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    with opened(tmp_path, stream):
        assert len(root.handlers) == len(before[1]) + 1

    assert (root.level, list(root.handlers)) == before
    assert not structlog.is_configured()


def test_a_closed_terminal_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    with open_logs(process="w", log_dir=tmp_path, instance_name="unit", stream=Broken()):
        structlog.get_logger().info("first")
        structlog.get_logger().info("second")

    assert [line["event"] for line in lines((tmp_path / "log.unit").read_text())] == ["first", "second"]


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_a_log_file_that_cannot_be_opened_is_the_operators_error(tmp_path: Path, stream: io.StringIO) -> None:
    (tmp_path / "log.unit").mkdir()

    with pytest.raises(ConfigError, match=r"log_dir: .*log\.unit cannot be written"), opened(tmp_path, stream):
        pass


def test_secrets_are_found_by_field_and_by_value_but_counts_stay() -> None:
    redact = Redactor(("public_token", "tiny"))

    assert redact(None, "info", {
        "event": "x",
        "text": "hello",
        "words": 3,
        "token": "abc",
        "nested": {"auth-id": "abc", "list": ["ok", "its public_token!", ("a", 1)]},
        "kept": "tiny",
        "odd": Path("/tmp/public_token"),
    }) == {
        "event": "x",
        "text": REDACTED,
        "words": 3,
        "token": REDACTED,
        "nested": {"auth-id": REDACTED, "list": ["ok", f"its {REDACTED}!", ["a", 1]]},
        "kept": "tiny",
        "odd": f"/tmp/{REDACTED}",
    }  # fmt: skip
