"""The number formats of the language model: which one a device takes, and what operators are told of it.

A worker and ``asr doctor``, which never imports torch, both ask here.
"""

from typing import Final

NUMBER_FORMATS: Final = ("bf16", "f16", "f32")
"""Values of ``dtype_override``."""

BF16_CAPABILITY: Final = (8, 0)
"""Native from this compute capability on. torch's own ``is_bf16_supported`` says yes to emulation, which is slow."""

F16_CAPABILITY: Final = (7, 0)
"""Older devices compute float16 slower than float32."""

F16_RISK: Final = (
    "float16 ends at 65504, which a model that was trained in bfloat16 may exceed: words are then wrong or missing; "
    'dtype_override = "f32" is safe, and takes twice the memory'
)


def lm_number_format(capability: tuple[int, int] | None) -> str:
    """Return the language model's number format on a CUDA device of that compute capability; None: on the CPU."""
    if capability is None or capability < F16_CAPABILITY:
        return "f32"
    return "bf16" if capability >= BF16_CAPABILITY else "f16"
