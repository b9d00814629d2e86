"""The sample utterances that ship beside a checkpoint, and the words that it is expected to say.

Where the folder already has samples, the recordings stay and only the expected words are made anew; otherwise eight
new recordings of espeak-ng are made.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import soundfile
import torch

from shared.units import FRAME_SAMPLES, SAMPLE_RATE
from training.decode import HeardWord, transcribe
from training.net import Net
from training.published import module_of, read_published
from training.testset import Recording, Studio, Voices

N_SAMPLES: Final = 8
_SILENT_FRAMES: Final = 20


def write_samples(config: Path, folder: Path, seed: int) -> None:
    """Write ``00.wav`` and so on where missing, and ``samples.json`` with texts, true times and expectations."""
    torch.set_num_threads(1)
    module = module_of(config)
    net = Net(module, seed).eval()
    read_published(net, module, config.parent, per_batch=512)
    folder.mkdir(parents=True, exist_ok=True)
    index = folder / "samples.json"
    entries: list[dict[str, Any]] = (
        json.loads(index.read_text(encoding="utf-8")) if index.exists() else _record(folder, seed)
    )
    for entry in entries:
        pcm, rate_hz = soundfile.read(folder / entry["file"], dtype="float32")
        assert rate_hz == SAMPLE_RATE
        n_frames = len(pcm) // FRAME_SAMPLES + _SILENT_FRAMES
        padded = np.pad(pcm, (0, n_frames * FRAME_SAMPLES - len(pcm)))[None]
        entry["expected"] = [_row(word) for word in transcribe(net, padded)[0]]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    index.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def _record(folder: Path, seed: int) -> list[dict[str, Any]]:
    studio = Studio(seed, Voices())
    recordings = studio.record(N_SAMPLES, studio.espeak(held_out=False), studio.known)
    return [_write(folder, f"{number:02d}.wav", recording) for number, recording in enumerate(recordings)]


def _write(folder: Path, name: str, recording: Recording) -> dict[str, Any]:
    end = round((recording.words[-1].end_s + 0.4) * SAMPLE_RATE)
    soundfile.write(folder / name, recording.pcm[:end], SAMPLE_RATE, subtype="PCM_16")
    words = [(w.text, round(w.start_s, 3), round(w.end_s, 3)) for w in recording.words]
    return {"file": name, "text": " ".join(word for word, _, _ in words), "words": words}


def _row(word: HeardWord) -> tuple[str, float, float]:
    return word.text, round(word.start_s, 2), round(word.stop_s, 2)
