"""Anything may happen in any order: every session gets exactly its own words, and no slot leaks.

The machine plays three gateways' sessions against one pool, with steps under way while messages arrive. For each
session it writes down the script of what was asked (frames, flushes, resets, markers) and compares what came back with
what the oracle says to that script.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from asr_worker.core.words import WordEvent
from asr_worker.model.fake_oracle import FakeTranscript
from shared.messages import EventKind, Ready, Reject

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported
WINDOW = 25


@dataclass
class Script:
    """What one session asked for since it was opened or last said Init."""

    session: int
    slot: int
    gateway: bytes
    prefix: int
    first_frame: int = 0
    n_frames: int = 0
    lines: list[tuple[Any, ...]] = field(default_factory=list)
    rows_before: int = 0
    events_before: int = 0
    next_id: int = 0

    def expected(self, chosen: Any) -> tuple[list[WordEvent], list[tuple[EventKind, int | None]]]:
        """Return all words and the order of the answers if everything is stepped."""
        transcript = FakeTranscript(chosen, prefix_frames=self.prefix)
        words: list[WordEvent] = []
        for line in self.lines:
            match line:
                case ("audio", pcm):
                    words += transcript.feed(pcm)
                case ("flush", _, pad):
                    words += transcript.flush(pad)
                case ("reset", _):
                    transcript.reset()
        return words, [(kind, line[1]) for line in self.lines if (kind := ANSWER.get(line[0])) is not None]


ANSWER = {"flush": EventKind.FLUSHED, "reset": EventKind.RESET_DONE, "marker": EventKind.MARKER}


class PoolMachine(RuleBasedStateMachine):
    """A worker of three slots; ``fakes`` are the fixtures that make it and its audio."""

    fakes: ClassVar[tuple[Any, Any]]

    def __init__(self) -> None:
        super().__init__()
        self.worker = self.fakes[0]()
        self.worker.greet(b"other")
        self.scripts: dict[int, Script] = {}
        self.next_session = 1
        self.is_computing = False
        self.seed = 0

    @initialize(delay=st.sampled_from([2, 6]))
    def choose_delay(self, delay: int) -> None:
        self.worker = self.fakes[0](delay_frames=delay)
        self.worker.greet(b"other")

    def pick(self, number: int) -> Script:
        return list(self.scripts.values())[number % len(self.scripts)]

    def rows(self, script: Script) -> list[tuple[int, int, int]]:
        rows: list[tuple[int, int, int]] = self.worker.rows[script.session, 1][script.rows_before :]
        return rows

    @rule(gateway=st.sampled_from([b"gw", b"other"]), prefix=st.sampled_from([0, 0, 5]), first=st.integers(0, 9))
    def open(self, gateway: bytes, prefix: int, first: int) -> None:
        session, self.next_session = self.next_session, self.next_session + 1
        answer = self.worker.open(session, gateway=gateway, prefix=prefix, first_frame=first)
        free = {0, 1, 2} - {script.slot for script in self.scripts.values()}
        if not free:
            assert isinstance(answer, Reject)
            return
        assert isinstance(answer, Ready)
        assert answer.slot == min(free)
        self.scripts[session] = Script(session, answer.slot, gateway, prefix, first_frame=first, n_frames=first)

    @precondition(lambda self: self.scripts)
    @rule(choice=st.lists(st.integers(0, 2), min_size=1, max_size=12), quiet=st.booleans())
    def audio(self, choice: list[int], quiet: bool) -> None:  # noqa: FBT001  (drawn by Hypothesis)
        """Send one block for each gateway, with frames of its sessions in any mixture."""
        blocks: dict[bytes, list[tuple[int, int, Any]]] = {}
        for number in choice:
            script = self.pick(number)
            stepped = sum(flag == 0 for _, _, flag in self.rows(script))
            if script.n_frames - script.first_frame - stepped >= WINDOW:
                continue
            self.seed += 1
            pcm = self.fakes[1](self.seed, 1) * (0 if quiet else 1)
            blocks.setdefault(script.gateway, []).append((script.session, script.n_frames, pcm[0]))
            script.lines.append(("audio", pcm))
            script.n_frames += 1
        for gateway, frames in blocks.items():
            assert self.worker.audio(*frames, gateway=gateway) == []

    @precondition(lambda self: self.scripts)
    @rule(number=st.integers(0, 2), verb=st.sampled_from(["marker", "flush", "reset"]), pad=st.integers(0, 1919))
    def item(self, number: int, verb: str, pad: int) -> None:
        script = self.pick(number)
        script.next_id += 1
        if script.next_id > 60:
            return
        had_audio = any(line[0] == "audio" for line in script.lines[-1:])
        pad = pad if verb == "flush" and had_audio else 0
        script.lines.append((verb, script.next_id, pad) if verb == "flush" else (verb, script.next_id))
        ask = getattr(self.worker, verb)
        before = self.worker.pool.gateways
        told = (
            ask(script.session, script.next_id, script.n_frames, pad, gateway=script.gateway)
            if verb == "flush"
            else ask(script.session, script.next_id, script.n_frames, gateway=script.gateway)
        )
        assert (told, self.worker.pool.gateways) == ([], before)

    @precondition(lambda self: self.scripts)
    @rule(number=st.integers(0, 2))
    def init(self, number: int) -> None:
        script = self.pick(number)
        self.check_so_far(script)
        told = self.worker.reset(script.session, None, script.n_frames, restart=True, gateway=script.gateway)
        assert [type(message) for message in told] == [Ready]
        script.lines.clear()
        script.first_frame = script.n_frames
        script.rows_before = len(self.worker.rows[script.session, 1])
        script.events_before = len(self.worker.events[script.session, 1])
        script.next_id = 0

    @precondition(lambda self: self.scripts)
    @rule(number=st.integers(0, 2))
    def close(self, number: int) -> None:
        script = self.pick(number)
        self.check_so_far(script)
        del self.scripts[script.session]
        self.worker.close(script.session, gateway=script.gateway)

    @precondition(lambda self: not self.is_computing)
    @rule()
    def launch(self) -> None:
        self.is_computing = self.worker.launch() is not None

    @precondition(lambda self: self.is_computing)
    @rule()
    def collect(self) -> None:
        self.is_computing = False
        self.worker.collect()

    @precondition(lambda self: not self.is_computing)
    @rule(n_steps=st.integers(1, 10))
    def steps(self, n_steps: int) -> None:
        for _ in range(n_steps):
            if self.worker.launch() is None:
                break
            self.worker.collect()

    def check_so_far(self, script: Script) -> None:
        """Everything that came is the beginning of what is to come."""
        words, answers = script.expected(self.worker.settings)
        came = self.worker.words(script.session, since=script.events_before)
        assert came == words[: len(came)]
        came_answers = self.worker.answers(script.session, since=script.events_before)
        for kind in (EventKind.MARKER, None):
            mine = [a for a in came_answers if (a[0] is EventKind.MARKER) == (kind is EventKind.MARKER)]
            all_of_kind = [a for a in answers if (a[0] is EventKind.MARKER) == (kind is EventKind.MARKER)]
            assert mine == all_of_kind[: len(mine)]

    def teardown(self) -> None:
        if self.is_computing:
            self.worker.collect()
        for script in self.scripts.values():
            script.next_id += 1
            script.lines.append(("flush", 99, 0))
            self.worker.flush(script.session, 99, script.n_frames, gateway=script.gateway)
        self.worker.run()
        for script in list(self.scripts.values()):
            words, answers = script.expected(self.worker.settings)
            assert self.worker.words(script.session, since=script.events_before) == words
            assert sorted(self.worker.answers(script.session, since=script.events_before)) == sorted(answers)
            self.check_so_far(script)
            frames = [frame for frame, _, flag in self.rows(script) if flag == 0]
            assert frames == list(range(script.first_frame, script.n_frames)), "each frame is stepped once"
            steps = [steps for _, steps, flag in self.rows(script) if flag == 0]
            assert steps == list(range(1, len(frames) + 1))
            self.worker.close(script.session, gateway=script.gateway)
        assert self.worker.load().used == 0
        assert self.worker.load().free == 3


@pytest.mark.timeout(120)
def test_every_session_gets_its_own_words_whatever_happens(make_worker: Fixture, make_speech: Fixture) -> None:
    class Machine(PoolMachine):
        fakes = (make_worker, make_speech)

    run_state_machine_as_test(Machine, settings=settings(max_examples=40, stateful_step_count=50, deadline=None))
