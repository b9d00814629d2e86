import pytest

from shared.number_formats import lm_number_format


@pytest.mark.parametrize(
    ("capability", "number_format"),
    [(None, "f32"), ((6, 1), "f32"), ((7, 0), "f16"), ((7, 5), "f16"), ((8, 0), "bf16"), ((9, 0), "bf16")],
)
def test_the_compute_capability_decides_the_number_format(
    capability: tuple[int, int] | None, number_format: str
) -> None:
    assert lm_number_format(capability) == number_format
