"""``rustymimi``, the published Rust Mimi for Python: encodes only. Its sizes are the published ones."""

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rustymimi
from safetensors.torch import save_file

from asr_worker.model.seeded import seeded_audio
from bench.engines.moshi import build_mimi
from bench.engines.process import Spec, serve


class RustyEngine:
    """Steps ``rustymimi.Tokenizer``."""

    def __init__(self, spec: Spec) -> None:
        # It wants a file with the decoder in it, so the other package, which has one, writes it.
        mimi = build_mimi(spec)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "mimi.safetensors"
            save_file({published(name): tensor.contiguous() for name, tensor in mimi.state_dict().items()}, path)
            self._tokenizer = rustymimi.Tokenizer(str(path), num_codebooks=spec.model["audio_codebooks"])
        self._pcm = np.repeat(seeded_audio("bench", 1, 1)[None], spec.batch, axis=0)

    def step(self) -> None:
        """Encode one frame of every row."""
        self._tokenizer.encode_step(self._pcm)


def published(name: str) -> str:
    """Return the name in the published file of what the Python package calls ``name``."""
    return name.replace("in_projs.0.weight", "in_proj_weight").replace("out_projs.0.weight", "out_proj.weight")


if __name__ == "__main__":
    serve(RustyEngine, {"rustymimi": version("rustymimi")})
