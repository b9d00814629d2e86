# ruff: noqa: RUF001 - the symbols of the International Phonetic Alphabet look like letters
"""Kokoro-82M: many natural voices, and as many again by mixing them, with the time that it gave every sound.

    words ──► espeak-ng, IPA ──► Kokoro's symbols ──► ONNX ──► 24 kHz samples, and frames (25 ms) for each symbol

A folder holds what its authors publish under the Apache License 2.0: ``model.onnx``, ``tokenizer.json`` (or
``config.json``) with the numbers of the symbols, ``voices/NAME.bin``. How long each symbol lasts is no output of the
published graph; it is computed inside and made an output here. Needs the packages onnx and onnxruntime.

A style is two halves: how a voice sounds, and how it speaks. Each is drawn apart and mixed from two voices.

A second of speech costs about a second on one core, so a bank holds each phrase several times, faster and slower.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from shared.errors import ConfigError
from training.bank import PhraseSource
from training.espeak import Espeak, SynthesisError
from training.listing import listed
from training.loudness import STEPS_PER_S, loudness
from training.phones import SILENCE, UNKNOWN, from_arpabet
from training.speech import Pcm, Sound, Span, Speech

RATE_HZ: Final = 24_000
HELD_OUT_VOICES: Final = listed("af_nova am_eric bf_lily bm_lewis")
"""Never mixed into a training voice."""

_FRAME_S: Final = 600 / RATE_HZ
_HALF: Final = 128
_QUIET: Final = 0.01
"""Share of a phrase's peak below which the rest of its last word is silence: the model pads the last sound."""

_LATE_S: Final = 0.042
"""What is heard is so much earlier than its frames say (measured with hissing sounds)."""
_LONGEST_ONSET_S: Final = 0.11
"""The space before a word already sounds like the word's first sound; it is no longer than this."""

_SYMBOLS: Final = {
    "oː^ɹ": "ɔɹ", "a^ɪ": "I", "a^ʊ": "W", "d^ʒ": "ʤ", "e^ɪ": "A", "e": "A", "t^ʃ": "ʧ", "ɔ^ɪ": "Y", "ə^l": "ᵊl",
    "ə^ʊ": "Q", "o^ʊ": "O", "ɚ": "əɹ", "ɜː": "ɜɹ", "r": "ɹ", "ɐ": "ə", "ʔ": "t", "g": "ɡ", "x": "k", "ç": "k", "ɬ": "l",
    "ː": "", "^": "", "ʲ": "", "\u0303": "", "\u0329": "", "-": "",
}  # fmt: skip
"""What espeak-ng writes and Kokoro writes differently, longest first where one begins like another."""
_BRITISH: Final = {"ɜː": "ɜː", "ː": "ː"}
_SYMBOL: Final = re.compile("|".join(re.escape(symbol) for symbol in sorted(_SYMBOLS, key=len, reverse=True)))
_ARPABET: Final = {
    "A": "ey", "I": "ay", "O": "ow", "Q": "ow", "W": "aw", "Y": "oy", "i": "iy", "u": "uw", "ɪ": "ih", "ᵻ": "ih",
    "ʊ": "uh", "ɛ": "eh", "æ": "ae", "a": "ae", "ɑ": "aa", "ɒ": "aa", "ɔ": "ao", "ʌ": "ah", "ə": "ax", "ᵊ": "ax",
    "ɜ": "er", "ɹ": "r", "ɾ": "t", "ɡ": "g", "ŋ": "ng", "ʃ": "sh", "ʒ": "zh", "ʧ": "ch", "ʤ": "jh", "θ": "th",
    "ð": "dh", "h": "hh", "j": "y",
}  # fmt: skip
_MARKS: Final = "ˈˌ"
"""Stress: the time of a mark is that of the sound behind it. A length mark's is that of the sound before it."""
_LONG: Final = "ː"


_KINDS: Final = (0.5, 0.3, 0.2, 0.0)
"""Shares of phrases of known words, mixed ones and foreign ones; it speaks no other language here."""
_TELLINGS: Final = 6
_MOST_FAILURES: Final = 20


class Kokoro:
    """Speaks with voices drawn anew for every phrase.

    Raises:
        ConfigError: the folder lacks a file, or a package is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._espeak = Espeak()
        self._session = _session(folder / "model.onnx")
        self._numbers = _numbers(folder)
        self._styles = {file.stem: np.fromfile(file, np.float32).reshape(-1, 2 * _HALF) for file in _voices(folder)}
        names = sorted(self._styles)
        self._heard = [name for name in names if name not in HELD_OUT_VOICES]
        self._english = [name for name in self._heard if name[0] in "ab"]
        if not self._english:
            message = f"{folder / 'voices'}: no English voice (a*.bin, b*.bin) that training may hear"
            raise ConfigError(message)

    def speak(self, words: Sequence[str], rng: random.Random, *, voice: str = "") -> Speech:
        """Speak the words with one voice, or with one drawn and mixed from those that training may hear.

        Raises:
            SynthesisError: a word has no sounds that Kokoro knows.
        """
        british = voice[:1] == "b" if voice else rng.random() < 0.3  # noqa: PLR2004
        symbols, owners = self._symbols(words, "en" if british else "en-us", rng)
        style = self._style(len(symbols), rng, voice)
        # Exports name it "tokens" or "input_ids".
        tokens = self._session.get_inputs()[0].name
        audio, frames = self._session.run(
            None,
            {
                tokens: np.array([[0, *(self._numbers[symbol] for symbol in symbols), 0]], dtype=np.int64),
                "style": style[None],
                "speed": np.array([rng.uniform(0.85, 1.35)], dtype=np.float32),
            },
        )
        pcm: Pcm = np.ravel(audio).astype(np.float32)
        bounds = np.concatenate([[0.0], np.cumsum(np.ravel(frames))]) * _FRAME_S
        return _timed(words, pcm, symbols, owners, bounds[1:-1])

    def _symbols(self, words: Sequence[str], language: str, rng: random.Random) -> tuple[str, list[int]]:
        """Return the symbols of a phrase and which word each belongs to, -1 for what stands between words."""
        symbols, owners = "", list[int]()
        listing = rng.random() < 0.5  # noqa: PLR2004
        for number, word in enumerate(words):
            own = "".join(symbol for symbol in self._of_word(word, language) if symbol in self._numbers)
            if not own.strip(_MARKS):
                message = f"Kokoro knows no sound of {word!r}"
                raise SynthesisError(message)
            between = "." if number == len(words) - 1 else ", " if listing or rng.random() < 0.2 else " "  # noqa: PLR2004
            symbols += own + between
            owners += [number] * len(own) + [-1] * len(between)
        return symbols, owners

    def _of_word(self, word: str, language: str) -> str:
        symbols = _SYMBOLS | (_BRITISH if language == "en" else {})
        return _SYMBOL.sub(lambda found: symbols[found[0]], self._espeak.ipa(word, language)).replace(" ", "")

    def _style(self, n_symbols: int, rng: random.Random, voice: str) -> npt.NDArray[np.float32]:
        if voice:
            return self._row(voice, n_symbols)
        halves = []
        for half in (slice(0, _HALF), slice(_HALF, None)):
            one, other = (rng.choice(self._english if rng.random() < 0.6 else self._heard) for _ in range(2))  # noqa: PLR2004
            share = rng.uniform(0.0, 0.5) if rng.random() < 0.7 else 0.0  # noqa: PLR2004
            halves.append((1 - share) * self._row(one, n_symbols)[half] + share * self._row(other, n_symbols)[half])
        return np.concatenate(halves).astype(np.float32)

    def _row(self, voice: str, n_symbols: int) -> npt.NDArray[np.float32]:
        """Return a voice's style for a phrase of so many symbols: it has one for each length."""
        if voice not in self._styles:
            message = f"Kokoro's folder has no voice {voice!r}; it has {', '.join(self._styles)}"
            raise ConfigError(message)
        styles = self._styles[voice]
        row: npt.NDArray[np.float32] = styles[min(n_symbols, len(styles)) - 1]
        return row


def natural_phrases(folder: Path, n_phrases: int, seed: int) -> Iterator[Speech]:
    """Speak random phrases for a bank, each kept six times at another speed.

    Raises:
        ConfigError: as `Kokoro`.
    """
    rng = random.Random(seed)
    kokoro, source = Kokoro(folder), PhraseSource(Espeak().phonemes, held_out=False)
    done = failures = 0
    while done < n_phrases:
        try:
            speech = kokoro.speak(source.draw(rng, _KINDS).words, rng)
        except SynthesisError:  # a made-up word without a sound that it knows; nearly none is
            failures += 1
            if failures > done + _MOST_FAILURES:
                raise
            continue
        done += 1
        yield from (speech.stretched(rng.uniform(0.84, 1.19)) for _ in range(_TELLINGS))


def _timed(
    words: Sequence[str], pcm: Pcm, symbols: str, owners: Sequence[int], bounds: npt.NDArray[np.float64]
) -> Speech:
    """Give words and sounds their times."""
    bounds = np.maximum(bounds - _LATE_S, 0.0)
    is_loud = loudness(pcm, RATE_HZ) > _QUIET * np.abs(pcm).max(initial=1e-6)
    first_s, last_s = _extent(pcm)
    firsts = [owners.index(number) for number in range(len(words))]
    starts = {
        index: max(first_s, _onset(is_loud, float(bounds[index - 1]) if index else 0.0, float(bounds[index])))
        for index in firsts
    }
    sounds: list[Sound] = []
    begin_s = float(bounds[0])
    for index, (symbol, owner) in enumerate(zip(symbols, owners, strict=True)):
        if index in starts:
            begin_s = starts[index]
            if sounds:
                sounds[-1] = replace(sounds[-1], end_s=begin_s)
        if symbol in _MARKS:
            continue
        end_s = float(bounds[index + 1])
        if symbol == _LONG and sounds:
            sounds[-1] = replace(sounds[-1], end_s=end_s)
        else:
            sounds.append(Sound(phone=SILENCE if owner < 0 else _phone(symbol), start_s=begin_s, end_s=end_s))
        begin_s = end_s
    spans = []
    for number, text in enumerate(words):
        end = max(index for index, owner in enumerate(owners) if owner == number)
        start_s, end_s = starts[firsts[number]], min(last_s, float(bounds[end + 1]))
        if end_s <= start_s:
            message = f"Kokoro did not say {text!r}"
            raise SynthesisError(message)
        spans.append(Span(text=text, start_s=start_s, end_s=end_s))
    return Speech(pcm=pcm, rate_hz=RATE_HZ, words=tuple(spans), sounds=tuple(sounds))


def _extent(pcm: Pcm) -> tuple[float, float]:
    """Return where sound begins and ends."""
    loud = np.flatnonzero(np.abs(pcm) > _QUIET * np.abs(pcm).max(initial=1e-6))
    return (float(loud[0]) / RATE_HZ, float(loud[-1] + 1) / RATE_HZ) if len(loud) else (0.0, len(pcm) / RATE_HZ)


def _onset(is_loud: npt.NDArray[np.bool_], earliest_s: float, start_s: float) -> float:
    """Return since when, before ``start_s``, it has been loud without a break."""
    step = int(start_s * STEPS_PER_S)
    while step and (step - 1) / STEPS_PER_S >= max(earliest_s, start_s - _LONGEST_ONSET_S) and is_loud[step - 1]:
        step -= 1
    return min(start_s, max(earliest_s, step / STEPS_PER_S))


def _phone(symbol: str) -> int:
    return from_arpabet(_ARPABET.get(symbol, symbol)) if symbol.isalpha() or symbol in _ARPABET else UNKNOWN


def _session(file: Path) -> Any:
    """Open the graph with one more output: the frames that each symbol lasts, which it rounds inside."""
    try:
        import onnx  # noqa: PLC0415 a dependency of this synthesiser alone
        import onnxruntime  # noqa: PLC0415
    except ImportError as error:
        message = f"Kokoro's voices need the packages onnx and onnxruntime: {error}"
        raise ConfigError(message) from error
    try:
        graph = onnx.load(str(file))
    except OSError as error:
        message = f"{file}: {error}"
        raise ConfigError(message) from error
    rounded = [node.output[0] for node in graph.graph.node if node.op_type == "Round"]
    frames = [node.output[0] for node in graph.graph.node if node.op_type == "Clip" and node.input[0] in rounded]
    if len(frames) != 1:
        message = f"{file}: expected one clipped rounding, the frames of each symbol, found {len(frames)}"
        raise ConfigError(message)
    if frames[0] not in {output.name for output in graph.graph.output}:
        graph.graph.output.append(onnx.helper.make_tensor_value_info(frames[0], onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _numbers(folder: Path) -> dict[str, int]:
    for name, keys in (("tokenizer.json", ("model", "vocab")), ("config.json", ("vocab",))):
        if (folder / name).exists():
            numbers = json.loads((folder / name).read_text(encoding="utf-8"))
            for key in keys:
                numbers = numbers[key]
            return dict(numbers)
    message = f"{folder}: neither tokenizer.json nor config.json is there"
    raise ConfigError(message)


def _voices(folder: Path) -> list[Path]:
    files = sorted((folder / "voices").glob("*.bin"))
    if not files:
        message = f"{folder / 'voices'}: no voices (NAME.bin)"
        raise ConfigError(message)
    return files
