import pytest

from asr_gateway.io import server_frames


@pytest.mark.parametrize(
    ("n_bytes", "head_hex"),
    [
        (0, "8200"),
        (125, "827d"),
        (126, "827e007e"),
        (65_535, "827effff"),
        (65_536, "827f0000000000010000"),
    ],
)
def test_the_head_of_a_binary_frame_is_as_short_as_can_be(n_bytes: int, head_hex: str) -> None:
    payload = b"x" * n_bytes

    assert server_frames.binary(payload) == bytes.fromhex(head_hex) + payload


def test_a_pong_returns_what_the_ping_held() -> None:
    assert server_frames.pong(b"hi").hex() == "8a026869"


def test_a_close_frame_holds_code_and_reason() -> None:
    assert server_frames.close(1013, "full").hex() == "880603f566756c6c"


def test_a_long_reason_is_cut_between_characters() -> None:
    frame = server_frames.close(1008, "é" * 100)

    assert len(frame) <= 127
    assert frame[4:].decode() == "é" * 60
