from asr_worker.core.admission import admit
from asr_worker.core.handshake import Identity
from asr_worker.core.pool import Pool
from asr_worker.io.link import Link
from asr_worker.io.loop import STUCK_AFTER_S, Loop
from asr_worker.metrics import WorkerMetrics
from asr_worker.model.fake import FakeModel
from asr_worker.model.fake_speech import FakeSettings
from shared.config import WorkerConfig


def test_a_loop_that_stands_still_is_first_not_ready_and_at_last_stuck() -> None:
    model, config, now = FakeModel(FakeSettings()), WorkerConfig(), 100.0
    pool = Pool(
        facts=model.facts,
        identity=Identity(worker="wk:test", module="fake"),
        config=config,
        admission=admit(model.facts, config),
        detokenize=model.detokenize,
    )
    with Link(gateway_timeout_s=config.gateway_timeout_s) as link:
        loop = Loop(pool=pool, model=model, link=link, metrics=WorkerMetrics(), drain_s=1.0, clock=lambda: now)

        assert (loop.is_ready(), loop.is_stuck()) == (True, False)
        now = 100.0 + STUCK_AFTER_S - 1
        assert (loop.is_ready(), loop.is_stuck()) == (False, False)
        now = 100.0 + STUCK_AFTER_S
        assert (loop.is_ready(), loop.is_stuck()) == (False, True)
