"""The token log's record: what was fed is the result of the step before, or the start of a stream."""

import numpy as np

from asr_worker.core.model import StepPlan, StepResult
from asr_worker.core.tokens import TokenRecorder


def test_each_slot_is_fed_its_last_result_and_a_fresh_one_the_start() -> None:
    recorder = TokenRecorder(n_slots=2, n_codebooks=2, start_token=99, pad_code=50)
    plan = StepPlan(pcm=np.zeros((2, 1920), np.float32), active=np.array([True, False]), reset=np.array([True, True]))
    result = StepResult(text=np.array([7, -1]), codes=np.array([[1, 2], [-1, -1]]), pauses=np.zeros((2, 0), np.float32))
    generations = np.array([1, 0])
    fed = [recorder.record(plan, result, generations)]
    plan.reset[:] = False
    plan.active[:] = True
    result.text[:], result.codes[:] = [8, 9], [[3, 4], [5, 6]]
    generations[1] = 1
    fed.append(recorder.record(plan, result, generations))
    plan.reset[0] = True
    fed.append(recorder.record(plan, result, generations))
    assert [step.text.tolist() for step in fed] == [[99, 99], [7, 99], [99, 9]]
    assert [step.audio.tolist() for step in fed] == [
        [[50, 50], [50, 50]], [[1, 2], [50, 50]], [[50, 50], [5, 6]],
    ]  # fmt: skip
    assert [step.mask.tolist() for step in fed] == [[True, False], [True, True], [True, True]]
    assert [step.generation.tolist() for step in fed] == [[1, 0], [1, 1], [1, 1]]
