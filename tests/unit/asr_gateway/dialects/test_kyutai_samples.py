"""The function in C against what it stands in for: ``decode`` of the message without its mask."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_gateway.core.dialect import SamplesOf
from asr_gateway.dialects import kyutai
from asr_gateway.io.websocket_frames import unmasked
from shared.flavour import is_compiled

if not is_compiled():
    pytest.skip("the compiled flavour only", allow_module_level=True)
assert kyutai.samples_of is not None, "the compiled flavour has it"
samples_of: SamplesOf = kyutai.samples_of

HEAD = b"\x82\xa4type\xa5Audio\xa3pcm\xdc"
MASKS = st.binary(min_size=4, max_size=4)


def message(bits: list[int]) -> bytes:
    return HEAD + len(bits).to_bytes(2, "big") + b"".join(b"\xca" + value.to_bytes(4, "big") for value in bits)


def framed(payload: bytes, mask: bytes) -> tuple[bytes, int]:
    length = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2, "big")
    head = b"\x82" + length + mask
    return head + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload)), len(head)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=14), MASKS)
def test_samples_keep_every_bit(bits: list[int], mask: bytes) -> None:
    samples = samples_of(*framed(message(bits), mask))

    assert samples is not None
    assert samples.dtype == np.float32
    assert samples.dtype.isnative
    assert samples.view(np.uint32).tolist() == bits


@pytest.mark.parametrize("n_samples", [1920, 1919, 13_103])
def test_long_messages_are_read_to_their_end(n_samples: int) -> None:
    pcm = np.random.default_rng(n_samples).standard_normal(n_samples).astype(np.float32)
    frame = framed(message(pcm.view(np.uint32).tolist()), b"\x01\x80\xff\x07")

    samples = samples_of(*frame)

    assert samples is not None
    assert np.array_equal(samples, pcm)
    assert np.array_equal(samples, kyutai.decode(unmasked(*frame)))  # type: ignore[arg-type]


@given(st.data(), st.integers(1, 9), MASKS)
def test_a_message_with_one_wrong_byte_in_its_form_is_left_alone(data: st.DataObject, n: int, mask: bytes) -> None:
    form = [*range(len(HEAD) + 2), *range(len(HEAD) + 2, len(HEAD) + 2 + 5 * n, 5)]
    payload = bytearray(message(list(range(n))))
    payload[data.draw(st.sampled_from(form))] ^= data.draw(st.integers(1, 255))

    assert samples_of(*framed(bytes(payload), mask)) is None


@given(st.integers(0, 60), MASKS)
def test_a_message_that_is_cut_is_left_alone(n_bytes: int, mask: bytes) -> None:
    payload = message(list(range(9)))

    assert samples_of(*framed(payload[:n_bytes], mask)) is None
    assert samples_of(*framed(payload + bytes(1 + n_bytes), mask)) is None


@given(st.binary(max_size=80), st.integers(-10, 90) | st.sampled_from([-(2**63), 2**63 - 1]))
def test_whatever_comes_nothing_breaks(frame: bytes, begin: int) -> None:
    assert samples_of(frame, begin) is None


def test_a_message_without_samples_is_left_alone() -> None:
    assert samples_of(*framed(message([]), bytes(4))) is None
