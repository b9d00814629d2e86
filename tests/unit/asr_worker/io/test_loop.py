import pytest

from asr_worker.core.admission import admit
from asr_worker.core.handshake import Identity
from asr_worker.core.pool import Pool
from asr_worker.io.link import Delivery, Link
from asr_worker.io.loop import STUCK_AFTER_S, UNREAD_S, Loop
from asr_worker.metrics import WorkerMetrics
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_speech import FakeSettings
from shared.config import WorkerConfig
from shared.messages import Hello, Open, SessionKind
from shared.units import Epoch, FrameIndex, SessionId


def pool_of(model: FakeModel, config: WorkerConfig) -> Pool:
    return Pool(
        facts=model.facts,
        identity=Identity(worker="wk:test", module="fake"),
        config=config,
        admission=admit(model.facts, config),
        detokenize=model.detokenize,
    )


def test_a_loop_that_stands_still_is_first_not_ready_and_at_last_stuck() -> None:
    model, config, now = FakeModel(FakeSettings()), WorkerConfig(), 100.0
    pool = pool_of(model, config)
    with Link(gateway_timeout_s=config.gateway_timeout_s) as link:
        loop = Loop(pool=pool, model=model, link=link, metrics=WorkerMetrics(), drain_s=1.0, clock=lambda: now)

        assert (loop.is_ready(), loop.is_stuck()) == (True, False)
        now = 100.0 + STUCK_AFTER_S - 1
        assert (loop.is_ready(), loop.is_stuck()) == (False, False)
        now = 100.0 + STUCK_AFTER_S
        assert (loop.is_ready(), loop.is_stuck()) == (False, True)


def test_a_flood_keeps_no_silent_gateway_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    model, config, now = FakeModel(FakeSettings()), WorkerConfig(), 100.0
    pool = pool_of(model, config)
    with Link(gateway_timeout_s=config.gateway_timeout_s) as link:
        loop = Loop(pool=pool, model=model, link=link, metrics=WorkerMetrics(), drain_s=1.0, clock=lambda: now)
        monkeypatch.setattr(loop, "_take_in", lambda: False)
        monkeypatch.setattr(link, "send", lambda *_: Delivery.TAKEN)
        pool.handle(b"gw", Hello(version=2, gateway="gw"), now)
        opening = Open(session=SessionId(1), epoch=Epoch(1), kind=SessionKind.LIVE, first_frame=FrameIndex(0))
        pool.handle(b"gw", opening, now)
        for silent_s, n_used in ((config.gateway_timeout_s + 1, 1), (config.gateway_timeout_s + UNREAD_S + 0.1, 0)):
            now = 100.0 + silent_s
            loop._turn()
            assert pool.n_used == n_used
