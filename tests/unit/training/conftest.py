"""A model so small that a step takes milliseconds, and a bank of tones that need no synthesiser."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # the training package is not installed: nothing that ships needs it

from shared.config import ModuleConfig  # noqa: E402
from training import words  # noqa: E402
from training.bank import Bank, write_bank  # noqa: E402
from training.published import module_of  # noqa: E402
from training.speech import Sound, Span, Speech  # noqa: E402

MICRO = {
    "audio_vocab_size": 33,
    "d_model": 32,
    "num_layers": 1,
    "dim_feedforward": 48,
    "context": 20,
    "n_filters": 4,
    "dimension": 32,
    "codebook_size": 32,
    "codebook_dim": 8,
}


@pytest.fixture(autouse=True)
def word_list(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for Debian's, which may be missing where its synthesisers are not."""
    path = tmp_path_factory.getbasetemp() / "american-english"
    if not path.exists():
        names = (
            "anchor basket candle dragon engine forest garden hammer island jacket kettle ladder magnet needle ocean"
        )
        path.write_text(
            "\n".join(f"{name}{end}" for name in names.split() for end in ("", "s", "like", "less", "board"))
        )
    monkeypatch.setattr(words, "WORD_LIST", path)
    return path


@pytest.fixture(scope="session")
def micro_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = (ROOT / "training" / "demo.toml").read_text()
    for key, value in MICRO.items():
        text = re.sub(rf"^{key} = \d+$", f"{key} = {value}", text, flags=re.MULTILINE)
    path = tmp_path_factory.mktemp("micro") / "demo.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="session")
def micro(micro_toml: Path) -> ModuleConfig:
    return module_of(micro_toml)


def tones(n: int, seed: int = 5) -> Iterator[Speech]:
    """'stop' is a low tone and 'music' a high one, each 0.4 s; a third, foreign word is noise."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(6400) / 16_000
    for _ in range(n):
        pcm, words, sounds = [], [], []
        for place, kind in enumerate(rng.integers(0, 3, 3)):
            word = ("stop", "music", "xyzzy")[kind]
            tone = np.sin(2 * np.pi * (300, 1500, 0)[kind] * seconds) if kind < 2 else rng.standard_normal(6400)
            pcm.append(0.2 * tone * np.hanning(6400))
            words.append(Span(text=word, start_s=0.4 * place, end_s=0.4 * place + 0.4))
            sounds.append(Sound(phone=1 + int(kind), start_s=0.4 * place, end_s=0.4 * place + 0.4))
        samples = np.concatenate([*pcm, np.zeros(3200)]).astype(np.float32)
        yield Speech(pcm=samples, rate_hz=16_000, words=tuple(words), sounds=tuple(sounds))


@pytest.fixture(scope="session")
def tone_bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    folder = tmp_path_factory.mktemp("bank")
    write_bank(folder, tones(60))
    return Bank(folder)


@pytest.fixture
def beep() -> Callable[..., None]:
    """Return what writes a stereo file of (seconds, loudness) after each other."""

    def write(path: Path, *pattern: tuple[float, float]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        mono = np.concatenate(
            [loudness * np.sin(0.1 * np.arange(int(seconds * 22_050))) for seconds, loudness in pattern]
        )
        soundfile.write(path, np.stack((mono, mono), axis=1), 22_050)

    return write
