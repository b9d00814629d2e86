# ruff: noqa: RUF001 - the symbols of the International Phonetic Alphabet look like letters
"""Kokoro's symbols and times, its network replaced by one that says how long each symbol lasts."""

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shared.errors import ConfigError
from training import kokoro, phones
from training.espeak import SynthesisError
from training.kokoro import RATE_HZ, Kokoro, natural_phrases

FRAME = 600
SYMBOLS = " .,ˈˌːAIOQWYʤʧabdefhijklmnopstuvwzðŋɑɒɔəɛɜɡɪɹɾʃʊʌʒθæᵊ"


class Network:
    """Lets every symbol last two frames, and tells of what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.silent = slice(0, 0)

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name=name) for name in ("tokens", "style", "speed")]

    def run(self, outputs: None, given: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        assert outputs is None
        self.asked.append(given)
        frames = np.full(given["tokens"].shape, 2.0, dtype=np.float32)
        samples = np.full(int(frames.sum()) * FRAME, 0.3, dtype=np.float32)
        samples[self.silent] = 0.0
        samples[: 2 * FRAME] = samples[-6 * FRAME :] = 0.0  # silence before the first sound, and in the last
        return samples, frames


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    network = Network()
    monkeypatch.setattr(kokoro, "_session", lambda _: network)
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "voices").mkdir()
    for number, name in enumerate(("af_one", "am_two", "bf_three", "zf_four", "af_nova")):
        np.full((510, 256), number, dtype=np.float32).tofile(tmp_path / "voices" / f"{name}.bin")
    vocab = {symbol: number for number, symbol in enumerate(SYMBOLS, start=1)}
    (tmp_path / "config.json").write_text(json.dumps({"vocab": vocab}))
    return tmp_path


def test_words_and_sounds_have_the_times_that_the_network_gave_its_symbols(folder: Path, network: Network) -> None:
    speech = Kokoro(folder).speak(("go", "light"), random.Random(3), voice="am_two")
    (asked,) = network.asked
    symbols = "".join(SYMBOLS[number - 1] for number in asked["tokens"][0, 1:-1])
    assert symbols in ("ɡˈO lˈIt.", "ɡˈO, lˈIt.")
    assert asked["style"].tolist() == [[1.0] * 256]
    go, light = speech.words
    # Its frames are 42 ms late, and silent until 50 ms; what is loud in the space before a word is the word's.
    assert (go.text, go.start_s, go.end_s) == ("go", pytest.approx(0.05), pytest.approx(0.158))
    comma_s = 0.05 * (symbols.index("l") - 4)
    assert light.start_s == pytest.approx(0.158 + comma_s, abs=0.01)
    # The last sound's silence is not the word's: it is quiet before the last sound ends.
    assert light.end_s == pytest.approx(len(speech.pcm) / RATE_HZ - 6 * FRAME / RATE_HZ)
    named = [(phones.PHONES[s.phone], round(s.start_s, 3), round(s.end_s, 3)) for s in speech.sounds]
    assert named[:2] == [("g", 0.05, 0.058), ("ow", 0.058, 0.158)]
    edges = [edge for sound in speech.sounds for edge in (sound.start_s, sound.end_s)]
    assert edges == sorted(edges)
    assert [name for name, _, _ in named if name != "pau"] == ["g", "ow", "l", "ay", "t"]


def test_silence_before_a_word_is_not_the_words(folder: Path, network: Network) -> None:
    network.silent = slice(int(0.21 * RATE_HZ), int(0.26 * RATE_HZ))  # the 50 ms before the second word's frames
    speech = Kokoro(folder).speak(("go", "light"), random.Random(3), voice="am_two")
    symbols = "".join(SYMBOLS[number - 1] for number in network.asked[0]["tokens"][0, 1:-1])
    assert symbols == "ɡˈO, lˈIt."
    assert speech.words[1].start_s == pytest.approx(0.3 - 0.042, abs=0.01)


def test_british_voices_keep_their_vowels_long(folder: Path, network: Network) -> None:
    Kokoro(folder).speak(("start",), random.Random(3), voice="bf_three")
    Kokoro(folder).speak(("start",), random.Random(3), voice="af_one")
    said = ["".join(SYMBOLS[number - 1] for number in asked["tokens"][0, 1:-1]) for asked in network.asked]
    assert said == ["stˈɑːt.", "stˈɑɹt."]


def test_drawn_voices_are_mixed_from_those_that_training_may_hear(folder: Path, network: Network) -> None:
    speaker, rng = Kokoro(folder), random.Random(5)
    for _ in range(60):
        speaker.speak(("yes",), rng)
    styles = np.concatenate([asked["style"] for asked in network.asked])
    assert styles.max() <= 3.0  # af_nova, all fours, is never heard
    assert len(np.unique(styles)) > 20
    assert any(style[0] != style[-1] for style in styles)


def test_a_word_without_sounds_is_named(folder: Path, network: Network) -> None:
    del network
    with pytest.raises(SynthesisError, match="'…'"):
        Kokoro(folder).speak(("…",), random.Random(1))


def test_a_voice_that_the_folder_lacks_is_named(folder: Path, network: Network) -> None:
    del network
    with pytest.raises(ConfigError, match="no voice 'bf_lily'; it has af_nova, af_one"):
        Kokoro(folder).speak(("yes",), random.Random(1), voice="bf_lily")


def test_speaking_ends_where_no_phrase_can_be_spoken(folder: Path, network: Network) -> None:
    (folder / "config.json").write_text(json.dumps({"vocab": {"ˈ": 1}}))
    with pytest.raises(SynthesisError, match="knows no sound"):
        list(natural_phrases(folder, 1, seed=4))
    assert not network.asked


def test_phrases_are_kept_several_times_at_other_speeds(folder: Path, network: Network) -> None:
    spoken = list(natural_phrases(folder, 2, seed=4))
    assert len(network.asked) == 2
    assert len(spoken) == 12
    assert len({speech.rate_hz for speech in spoken[:6]}) == 6
    assert {tuple(word.text for word in speech.words) for speech in spoken[:6]} == {
        tuple(word.text for word in spoken[0].words)
    }


def test_folders_that_lack_something_are_refused_by_name(tmp_path: Path, network: Network) -> None:
    del network
    with pytest.raises(ConfigError, match=r"tokenizer\.json nor config\.json"):
        Kokoro(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 1}}}))
    with pytest.raises(ConfigError, match="no voices"):
        Kokoro(tmp_path)
