"""Random weights and audio that are the same on every machine: for tests, golden files and benchmarks.

Numbers come from the raw bits of PCG64, whose stream numpy promises never to change, and are made with arithmetic
that rounds the same way everywhere. A tensor depends on the seed, its name and its shape only, so a file of weights
need not be kept: its hash is enough. Needs numpy alone: the published package's environment imports it too.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from shared.units import FRAME_SAMPLES

HELD_SAMPLES: Final = 24
"""For how many samples the low tone of ``seeded_audio`` holds a value: most of its energy lies below 500 Hz."""


def seeded_noise(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return uniform numbers in [-1, 1) that depend on the arguments only."""
    bits = np.random.PCG64([seed, crc32(name.encode())]).random_raw(math.prod(shape))
    # 24 bits are what a float32 holds exactly.
    halves = np.asarray(bits >> np.uint64(40), np.float32) * np.float32(2**-23)
    return (halves - np.float32(1.0)).reshape(shape)


def seeded_tensor(name: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return a tensor of a size that keeps activations near 1, judged by its published name."""
    middle, spread = _range_of(name, shape)
    return np.float32(middle) + np.float32(spread) * seeded_noise(name, shape, seed)


def _range_of(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Return the middle and half the width of the numbers of a tensor."""
    kind = name.rpartition(".")[2]
    ranges = {
        "_initialized": (1.0, 0.0),
        "alpha": (1.0, 0.25),
        "bias": (0.0, 0.125),
        "cluster_usage": (1.0, 0.25),
        "embedding_sum": (0.0, 0.5),
        "learnt_padding": (0.0, 0.125),
        "scale": (0.3, 0.125),
    }
    if kind in ranges:
        return ranges[kind]
    if ".norm" in name:
        return 1.0, 0.25
    if "emb." in name or "embed." in name:
        return 0.0, 1.0
    fan_in = math.prod(shape[1:])
    return 0.0, 1.5 * math.sqrt(3 / fan_in)


def seeded_weights(shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, NDArray[np.float32]]:
    """Return a tensor for each published name."""
    return {name: seeded_tensor(name, shape, seed) for name, shape in shapes.items()}


def seeded_audio(name: str, n_frames: int, seed: int) -> NDArray[np.float32]:
    """Return ``[n_frames, 1920]`` of noise over a rough low tone, with a loudness that changes from frame to frame."""
    low = np.repeat(seeded_noise(f"{name}.low", (n_frames, FRAME_SAMPLES // HELD_SAMPLES), seed), HELD_SAMPLES, axis=1)
    high = seeded_noise(f"{name}.high", (n_frames, FRAME_SAMPLES), seed)
    loudness = np.abs(seeded_noise(f"{name}.loudness", (n_frames, 2), seed))
    return (loudness[:, :1] * low + loudness[:, 1:] * high * np.float32(0.5)) * np.float32(0.5)


def digest_of(tensors: Mapping[str, NDArray[np.float32]]) -> str:
    """Return a sha256 over names and numbers, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return digest.hexdigest()
