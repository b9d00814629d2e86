# Described in the C file.
import numpy as np
from numpy.typing import NDArray

def unmasked(head: bytes, frame: bytes, begin: int) -> NDArray[np.float32] | None: ...
