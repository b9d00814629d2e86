"""What operators are told of number formats, by whoever notices first: a worker's log or ``asr doctor``."""

from typing import Final

F16_RISK: Final = (
    "float16 ends at 65504, which a model that was trained in bfloat16 may exceed: words are then wrong or missing; "
    'dtype_override = "f32" is safe, and takes twice the memory'
)
