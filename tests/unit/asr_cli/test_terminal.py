import os
from collections.abc import Iterator
from typing import TextIO

import pytest

from asr_cli.terminal import Terminal


@pytest.fixture
def pipe() -> Iterator[tuple[TextIO, TextIO]]:
    """A terminal, and the eyes in front of it."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as eyes, os.fdopen(writing, "w") as screen:
        yield eyes, screen


def test_lines_are_said_in_order_and_the_last_before_the_end(pipe: tuple[TextIO, TextIO]) -> None:
    eyes, screen = pipe
    terminal = Terminal(screen)
    terminal.start()
    for line in ("ready", "stopping"):
        terminal.say(line)
    terminal.close()
    assert [eyes.readline(), eyes.readline()] == ["asr: ready\n", "asr: stopping\n"]


def test_a_terminal_that_is_gone_costs_lines_only(pipe: tuple[TextIO, TextIO]) -> None:
    eyes, screen = pipe
    eyes.close()
    terminal = Terminal(screen)
    terminal.start()
    for _ in range(3):
        terminal.say("nobody hears this")
    terminal.close()
    screen.flush()  # nothing is left that would make the end of the process a failure


def test_without_a_terminal_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    terminal = Terminal()
    terminal.start()
    terminal.say("nobody hears this")
    terminal.close()


@pytest.mark.parametrize("n_lines", [80, 300], ids=["the screen is full", "so is what waits for it"])
def test_a_terminal_that_is_halted_holds_nobody_up(
    pipe: tuple[TextIO, TextIO], monkeypatch: pytest.MonkeyPatch, n_lines: int
) -> None:
    monkeypatch.setattr("asr_cli.terminal.LAST_WORDS_S", 0.05)
    _, screen = pipe
    terminal = Terminal(screen)
    terminal.start()
    for _ in range(n_lines):
        terminal.say("x" * 1000)
    terminal.close()
