import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from asr_gateway.core.g711 import from_a_law, from_mu_law


@pytest.mark.parametrize(("decode", "subtype"), [(from_mu_law, "ULAW"), (from_a_law, "ALAW")])
def test_every_byte_is_what_libsndfile_makes_of_it(
    decode: Callable[[bytes], NDArray[np.float32]], subtype: str
) -> None:
    data = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(data), dtype="float32", format="RAW", subtype=subtype, samplerate=8000, channels=1
    )
    np.testing.assert_array_equal(decode(data), expected)


def test_silence_and_full_scale() -> None:
    assert from_mu_law(b"\xff\x7f").tolist() == [0.0, 0.0]
    assert from_mu_law(b"\x80\x00").tolist() == [32124 / 32768, -32124 / 32768]
    assert from_a_law(b"\xd5\x55").tolist() == [8 / 32768, -8 / 32768]
