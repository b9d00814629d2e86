"""The list of test sets: which speakers, which conditions, which group of the table."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from training import prompts, words
from training.augment import Augmentation
from training.bank import Phrase
from training.kokoro import HELD_OUT_VOICES, Kokoro
from training.people import People
from training.speech import Speech
from training.testset import RATE_HZ, Recording, Studio, TestSet, Voices

CLEAN: Final = Augmentation(
    room=0, equaliser=0, low_pass=0, high_pass=0, telephone=0, noise=0, level_dbfs=(-24, -24), opus=0, mu_law=0
)
CONDITIONS: Final = {
    "20 dB white": replace(CLEAN, noise=1, snr_db=(20, 20)),
    "10 dB white": replace(CLEAN, noise=1, snr_db=(10, 10)),
    "15 dB coloured": replace(CLEAN, noise=1, snr_db=(15, 15)),
    "15 dB babble": replace(CLEAN, noise=1, snr_db=(15, 15)),
    "room": replace(CLEAN, room=1),
    "telephone": replace(CLEAN, telephone=1, mu_law=1),
    "Opus": replace(CLEAN, opus=1),
}
SPEEDS: Final = {"slow (100-120)": (100, 120), "normal (140-170)": (140, 170), "fast (195-215)": (195, 215)}
NOISES: Final = ("white", "coloured", "wind", "hum", "clicks", "music", "babble")
_NOISE_S: Final = 90.0


def exam(
    seed: int, n: int, *, n_words: int, n_most: int, people: Path | None = None, kokoro: Path | None = None
) -> Iterator[TestSet]:
    """Yield all sets, ``n`` recordings each, of the first ``n_words`` words; the held-out synthesiser comes first.

    Sets of the further words, up to ``n_most``, follow for checkpoints that know them. ``people``, a folder of
    recorded words (`training.people`), adds two sets of speakers never trained on, ``kokoro``, its folder
    (`training.kokoro`), two of voices never trained on.
    """
    voices = Voices()
    studio = Studio(seed, voices, words.VOCABULARY[:n_words])
    yield from _synthesisers(studio, f"{n_words} words, clean", n)
    further = Studio(seed, voices, words.VOCABULARY[n_words:n_most])
    if n_most > n_words:
        for one in _synthesisers(further, f"{n_most - n_words} further words, clean", n):
            yield replace(one, n_words=n_most)
    yield _woman(studio, words.VOCABULARY[:n_words], n)
    if n_most > n_words:
        yield replace(_woman(further, words.VOCABULARY[n_words:n_most], n), n_words=n_most)
    if people:
        speakers = People(people, words.VOCABULARY[:n_words], held_out=True)
        known = studio.record(n, lambda rng, _: speakers.known(rng), studio.known)
        yield TestSet(name="recorded words, speakers never heard", group="recorded people", recordings=known)
        strangers = People(people, words.VOCABULARY[:n_most], held_out=True)
        if strangers.has_foreign:
            foreign = studio.record(n, lambda rng, _: strangers.foreign(rng), studio.foreign)
            name = "English, recorded people, speakers never heard"
            yield TestSet(name=name, group="foreign words", recordings=foreign)
    if kokoro:
        yield from _natural(studio, kokoro, n)
    yield from _foreign(studio, n)
    yield from _noises(studio)
    base = studio.record(n, studio.espeak(held_out=True), studio.known)
    for name, how in CONDITIONS.items():
        kind = {"15 dB coloured": "coloured", "15 dB babble": "babble"}.get(name, "white")
        noises = [studio.noises(kind, 60.0)] if how.noise else []
        yield TestSet(name=name, group="conditions (espeak-ng, held out)", recordings=studio.changed(base, how, noises))
    for name, rate in SPEEDS.items():
        recordings = studio.record(n, studio.espeak(held_out=True, rate=rate), studio.known)
        yield TestSet(name=name, group="words a minute (espeak-ng, held out)", recordings=recordings)


def _synthesisers(studio: Studio, group: str, n: int) -> Iterator[TestSet]:
    for name, speaker in (
        ("Festival ked: synthesiser and speaker never trained on", "ked"),
        ("Festival kal: synthesiser and speaker never trained on", "kal"),
        ("Festival slt: synthesiser never trained on, speaker known", "slt"),
    ):
        recordings = studio.record(n, studio.festival(speaker, studio.known, n), studio.known)
        yield TestSet(name=name, group=group, recordings=recordings)
    for name, speaker in (
        ("flite kal16: speaker never trained on", "kal16"),
        ("flite kal, 8 kHz: speaker never trained on", "kal"),
        ("flite awb: trained", "awb"),
        ("flite rms: trained", "rms"),
        ("flite slt: trained", "slt"),
    ):
        yield TestSet(name=name, group=group, recordings=studio.record(n, studio.flite(speaker), studio.known))
    for name, espeak in (
        ("espeak-ng, variants no training ever had", studio.espeak(held_out=True, unseen=True)),
        ("espeak-ng, held-out variants and accent", studio.espeak(held_out=True)),
        ("espeak-ng, trained variants", studio.espeak(held_out=False)),
    ):
        yield TestSet(name=name, group=group, recordings=studio.record(n, espeak, studio.known))


def _woman(studio: Studio, vocabulary: Sequence[str], n: int) -> TestSet:
    recorded = prompts.known(vocabulary)
    recordings = studio.record(n, prompts.speaker(), prompts.one_of(recorded))
    kind = "further words" if vocabulary[0] != words.VOCABULARY[0] else "words"
    return TestSet(name=f"{len(recorded)} {kind} of a woman, telephone", group="recorded people", recordings=recordings)


def _natural(studio: Studio, folder: Path, n: int) -> Iterator[TestSet]:
    kokoro = Kokoro(folder)

    def speak(rng: random.Random, phrase: Phrase) -> Speech:
        return kokoro.speak(phrase.words, rng, voice=rng.choice(HELD_OUT_VOICES))

    known = studio.record(n, speak, studio.known)
    yield TestSet(name="Kokoro, four voices never heard", group="natural voices", recordings=known)
    foreign = studio.record(n, speak, studio.foreign)
    yield TestSet(name="English, Kokoro, four voices never heard", group="foreign words", recordings=foreign)


def _foreign(studio: Studio, n: int) -> Iterator[TestSet]:
    for name, speaker, texts in (
        ("English, Festival ked", studio.festival("ked", studio.foreign, n), studio.foreign),
        ("English, flite kal16", studio.flite("kal16"), studio.foreign),
        ("English, flite rms", studio.flite("rms"), studio.foreign),
        ("English, espeak-ng held out", studio.espeak(held_out=True), studio.foreign),
        ("seven other languages, espeak-ng", studio.espeak(held_out=True), studio.other_language),
        ("English, recorded woman", prompts.speaker(), prompts.foreign_english),
        ("Spanish and French, recorded women", prompts.speaker(), prompts.foreign_language),
    ):
        yield TestSet(name=name, group="foreign words", recordings=studio.record(n, speaker, texts))
    for name, speaker, texts in (
        ("one sound from a known word, flite kal16", studio.flite("kal16"), studio.almost_known),
        ("one sound from a known word, espeak-ng held out", studio.espeak(held_out=True), studio.almost_known),
        ("nonsense, espeak-ng held out", studio.espeak(held_out=True), studio.nonsense),
    ):
        yield TestSet(name=name, group="made-up words", recordings=studio.record(n, speaker, texts))


def _noises(studio: Studio) -> Iterator[TestSet]:
    """Yield 90 s of each noise, its level rising from -50 to -15 dB in steps of 15 s."""
    for kind in NOISES:
        steps = np.repeat(10 ** (np.array([-50, -40, -32, -26, -20, -15]) / 20), int(_NOISE_S / 6) * RATE_HZ)
        pcm = np.clip(studio.noises(kind, _NOISE_S)[: len(steps)] * steps, -1, 1).astype(np.float32)
        yield TestSet(name=kind, group="noise", recordings=(Recording(pcm=pcm, words=()),))


def seconds(recordings: Sequence[Recording]) -> float:
    """Return how long the recordings are together."""
    return sum(len(one.pcm) for one in recordings) / RATE_HZ
