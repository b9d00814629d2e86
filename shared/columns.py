"""Columns of numbers <-> one part of a message, and audio as another: how the link carries blocks of many rows.

    sessions [n] int64 │ frames [n] int64 │ epochs [n] int32 │ ...        little-endian, one after the other
    float32 audio [n, 1920], row after row

Lengths are checked before a column is believed to be there.
"""

import math
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.errors import LinkError
from shared.units import FRAME_BYTES, FRAME_SAMPLES

Part: TypeAlias = bytes | memoryview

INT64: Final = np.dtype("<i8")
INT32: Final = np.dtype("<i4")
FLOAT32: Final = np.dtype("<f4")
UINT16: Final = np.dtype("<u2")
UINT8: Final = np.dtype("u1")

_SHORT: Final = 32

_Number = TypeVar("_Number", bound=np.generic)


class Columns:
    """Cuts one part into the columns that were joined into it."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._offset = 0

    def take(self, dtype: "np.dtype[_Number]", *shape: int) -> NDArray[_Number]:
        """Return the next column, a view of the part.

        Raises:
            LinkError: the part is too short for it.
        """
        n_items = math.prod(shape)
        if self._offset + n_items * dtype.itemsize > len(self._part):
            message = f"columns of {len(self._part)} bytes are too short for the {shape[0]} rows announced"
            raise LinkError(message)
        column = np.frombuffer(self._part, dtype, n_items, self._offset).reshape(shape)
        self._offset += column.nbytes
        return column

    def finish(self) -> None:
        """See to it that nothing is left.

        Raises:
            LinkError: something is.
        """
        if self._offset != len(self._part):
            message = f"columns are {len(self._part)} bytes long, {self._offset} were announced"
            raise LinkError(message)


def join_columns(*columns: tuple["np.dtype[Any]", NDArray[Any]]) -> bytes:
    """Return columns, each in the number format named beside it, as one part."""
    return b"".join(column.astype(dtype, copy=False).tobytes() for dtype, column in columns)


def check_least(name: str, column: NDArray[Any], least: int) -> None:
    """See to it that no number of a column is below ``least``.

    Raises:
        LinkError: one is; names it.
    """
    # A gateway that is not busy sends few frames, and a call into numpy takes as long as a short list.
    lowest = min(column.tolist(), default=least) if len(column) < _SHORT else int(column.min())
    if lowest < least:
        message = f"{name} must be at least {least}, not {lowest}"
        raise LinkError(message)


def audio_part(pcm: NDArray[np.float32]) -> memoryview:
    """Return frames ``[n, 1920]`` as one part, which is no copy."""
    return np.ascontiguousarray(pcm, FLOAT32).data.cast("B") if pcm.size else memoryview(b"")


def audio_rows(part: Part, n_rows: int) -> NDArray[np.float32]:
    """Return the frames ``[n, 1920]`` in a part, a view of it.

    Raises:
        LinkError: there are more or fewer.
    """
    if len(part) != n_rows * FRAME_BYTES:
        message = f"{n_rows} frames of audio are {n_rows * FRAME_BYTES} bytes, not {len(part)}"
        raise LinkError(message)
    return np.frombuffer(part, FLOAT32).reshape(n_rows, FRAME_SAMPLES)
