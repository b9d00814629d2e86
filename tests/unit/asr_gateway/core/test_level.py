import math

import numpy as np
import pytest

from asr_gateway.core.level import limited


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_can_be_played_is_returned_as_it_is(dtype: type) -> None:
    pcm = np.array([0.0, -10.0, 10.0, 1e-30], dtype)

    assert limited(pcm) is pcm
    assert limited(pcm[:0]).size == 0


@pytest.mark.parametrize(
    ("wild", "tame"), [(math.nan, 0.0), (math.inf, 10.0), (-math.inf, -10.0), (10.5, 10.0), (-3e38, -10.0)]
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_wild_sample_is_mended_and_the_others_stay(wild: float, tame: float, place: int) -> None:
    pcm = np.array([0.5, -0.25, 4.0], np.float32)
    pcm[place] = wild
    expected = [0.5, -0.25, 4.0]
    expected[place] = tame

    assert limited(pcm).tolist() == expected
