"""Two hundred sessions open, stream and close at random on eight slots: every one gets exactly its own words."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from asr_worker.core.words import WordEvent
from asr_worker.model.fake_oracle import expected_events
from shared.messages import EventKind, Evict, Load, Ready, StepFlag

Fixture = Any  # fixtures of conftest.py, whose classes cannot be imported
Speech = Callable[[int, int], NDArray[np.float32]]

N_SESSIONS = 200
N_SLOTS = 8
N_NEVER = 1_000
"""More steps than any session has."""


class Churn:
    """Opens sessions on either gateway while slots are free, and ends them: most when all was said, some before."""

    def __init__(self, gateways: list[Any], make_speech: Speech) -> None:
        self.gateways = gateways
        self.homes: dict[int, Any] = {}
        self.waiting = list(range(1, N_SESSIONS + 1))
        self.n_cut = 0
        self._make_speech = make_speech
        self._expected: dict[int, tuple[int, list[WordEvent]]] = {}
        self._cut_after: dict[int, int] = {}
        """Steps after which a session is ended before all was said: by steps, as turns tell how busy the machine is."""
        self._chance = random.Random(7)

    def turn(self) -> None:
        if self.waiting and len(self.homes) < N_SLOTS:
            self._open(self.waiting.pop())
        for gateway in self.gateways:
            gateway.run(lambda: gateway.receive(0.002) is None)  # noqa: B023  (run at once)
        for number, home in list(self.homes.items()):
            if self._is_over(number, home.sessions[number]):
                home.close(number)
                del self.homes[number]

    def _open(self, number: int) -> None:
        home = self._chance.choice(self.gateways)
        assert isinstance(home.open(number), Ready)
        pcm = self._make_speech(number, self._chance.randint(0, 60))
        self.homes[number], self._expected[number] = home, (len(pcm), expected_events(pcm, flush=True))
        if self._chance.random() < 0.3:
            self._cut_after[number] = self._chance.randint(0, 30)
        session = home.sessions[number]
        session.say(pcm)
        session.marker(number)
        session.flush(number + 1)

    def _is_over(self, number: int, session: Any) -> bool:
        n_frames, words = self._expected[number]
        if len(session.answers) == 2:
            assert sorted(session.answers) == [(EventKind.MARKER, number), (EventKind.FLUSHED, number + 1)]
            assert session.words == words
            frames = [frame for frame, flag in session.rows if flag == StepFlag.CLIENT]
            assert frames == list(range(n_frames))
            return True
        if len(session.rows) >= self._cut_after.get(number, N_NEVER):
            self.n_cut += 1
            assert session.words == words[: len(session.words)]
            return True
        return False


@pytest.mark.timeout(120)
def test_two_hundred_sessions_on_eight_slots_get_their_own_words_and_no_slot_leaks(
    start_worker: Fixture, connect: Fixture, make_speech: Speech
) -> None:
    worker = start_worker("--fake-slots", str(N_SLOTS))
    gateways = [connect(worker) for _ in range(2)]
    for gateway in gateways:
        gateway.hello()
    churn, process, memory_bytes = Churn(gateways, make_speech), psutil.Process(worker.process.pid), []
    while churn.waiting or churn.homes:
        churn.turn()
        if len(churn.waiting) <= N_SESSIONS - 50:
            memory_bytes.append(process.memory_info().rss)
    for gateway in gateways:
        gateway.run(lambda: gateway.expect(Load).used == 0)  # noqa: B023  (run at once)
        assert gateway.expect(Load).free == N_SLOTS
        assert not [message for message in gateway.other if isinstance(message, Evict)]
    assert 0 < churn.n_cut < N_SESSIONS // 2
    assert max(memory_bytes) - memory_bytes[0] < 8 << 20
