"""Utterances made of a bank's phrases: what one row of a batch holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from training.augment import Augmentation, disturbed
from training.bank import FIRST_WORD_ID, FOREIGN, Bank
from training.noise import pool
from training.progress import Fare
from training.speech import Pcm
from training.targets import PadWeights, Targets, targets
from training.vocoder import other_voice

FRAME_SAMPLES: Final = 1920
RATE_HZ: Final = 24_000
_NOISE_CLIPS: Final = 60
"""Enough to meet every kind often and none too often; made at the start, in a few seconds."""
_NOISE_S: Final = 20.0


@dataclass(frozen=True, kw_only=True)
class _Mix:
    """Which phrases, voices and pauses, what happens to them, and what silence counts."""

    other_voices: float = 0.0
    """Share of the phrases that are said in another voice than the bank's."""
    foreign_odds: float
    """Odds of a phrase without a known word; one of known words only has one more."""
    long_pauses: float = 0.18
    """Share of pauses between phrases that are long: from 1 s on instead of from 0."""
    longest_s: tuple[float, float] = (0.8, 4.0)
    """The longest short pause, and the longest long one."""
    how: Augmentation
    pads: PadWeights


_ALL: Final = _Mix(other_voices=0.7, foreign_odds=0.5, how=Augmentation(), pads=PadWeights())
# An hour on one core is too short to get sure of what is hardly heard or what few voices said. Who is not sure keeps
# silent, unless silence counts little.
_SIMPLE: Final = _Mix(
    foreign_odds=0.1,
    long_pauses=0.05,
    longest_s=(0.3, 3.0),
    how=Augmentation(noise=0.75, snr_db=(4.0, 38.0)),
    pads=PadWeights(in_silence=0.3, in_foreign_words=0.8),
)
_PLAIN: Final = _Mix(foreign_odds=0.25, how=_SIMPLE.how, pads=PadWeights(in_silence=0.05, in_foreign_words=0.15))
_MIXES: Final = {Fare.SIMPLE: _SIMPLE, Fare.PLAIN: _PLAIN, Fare.ALL: _ALL}


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """Samples ``[F * 1920]`` and, as rows of (id, start, end in s), the words and sounds in them."""

    pcm: Pcm
    words: np.ndarray
    sounds: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B utterances: ``pcm`` ``[B, F * 1920]``, their targets stacked, and what silence counts in them."""

    pcm: np.ndarray
    text: np.ndarray
    said: np.ndarray
    foreign: np.ndarray
    pause: np.ndarray
    phones: np.ndarray
    pads: PadWeights


class UtteranceSource:
    """Draws batches of disturbed utterances of F frames.

    Args:
        bank: the phrases.
        n_frames: F, longer than the language model's context so that it never leans on a session's start.
        delay: D of the targets.
        seed: of everything drawn.
        fare: which phrases, voices and pauses, and what happens to them.
        n_noises: clips of 20 s to draw noise from.
        n_words: how many of the bank's words the model is to know; the others are foreign to it.
        foreign_weight: what a step of padding in foreign words counts; None: as the fare has it.
        open_starts: of the targets (`training.targets`).
    """

    def __init__(
        self,
        bank: Bank,
        *,
        n_frames: int,
        delay: int,
        n_words: int,
        seed: int,
        fare: Fare = Fare.ALL,
        n_noises: int = _NOISE_CLIPS,
        foreign_weight: float | None = None,
        open_starts: bool = False,
    ) -> None:
        self._bank = bank
        self.n_frames = n_frames
        self._delay = delay
        self._mix = _MIXES[fare]
        self._pads = replace(self._mix.pads, open_starts=open_starts)
        if foreign_weight is not None:
            self._pads = replace(self._pads, in_foreign_words=foreign_weight)
        self._last_id = FIRST_WORD_ID + n_words - 1
        self._rng = np.random.default_rng(seed)
        shares = bank.known_shares(self._last_id)
        # A model that knows fewer words than the bank would meet too few of them.
        self._odds = np.cumsum(self._mix.foreign_odds + shares)
        foreign = [i for i in range(min(len(bank), 4000)) if np.all(bank[i][1][:, 0] == FOREIGN)]
        clips = pool(self._rng, n_noises, _NOISE_S, lambda: bank[int(self._rng.choice(foreign))][0])
        self._noises: Sequence[Pcm] = [clip for _, clip in clips]

    def reseed(self, seed: np.random.SeedSequence) -> None:
        """Draw from another stream of random numbers from here on."""
        self._rng = np.random.default_rng(seed)

    def batch(self, size: int) -> Batch:
        """Return ``size`` fresh utterances with their targets."""
        drawn = [self.utterance() for _ in range(size)]
        rng = self._rng if self._pads.open_starts else None
        wanted: list[Targets] = [targets(u.words, u.sounds, self.n_frames, self._delay, rng) for u in drawn]
        return Batch(
            pcm=np.stack([u.pcm for u in drawn]),
            text=np.stack([t.text for t in wanted]),
            said=np.stack([t.said for t in wanted]),
            foreign=np.stack([t.foreign for t in wanted]),
            pause=np.stack([t.pause for t in wanted]),
            phones=np.stack([t.phones for t in wanted]),
            pads=self._pads,
        )

    def utterance(self) -> Utterance:
        """Return one: phrases with random gaps, or now and then nothing but noise."""
        clean = self._clean(empty=self._rng.random() < 0.05)  # noqa: PLR2004 one in twenty is noise only
        return Utterance(
            pcm=disturbed(clean.pcm, self._rng, self._noises, self._mix.how), words=clean.words, sounds=clean.sounds
        )

    def _clean(self, *, empty: bool) -> Utterance:
        rng, mix, n = self._rng, self._mix, self.n_frames * FRAME_SAMPLES
        pcm = np.zeros(n, dtype=np.float32)
        words, sounds = [np.zeros((0, 3))], [np.zeros((0, 3))]
        at = n if empty else int(rng.uniform(0, 1.2) * RATE_HZ)
        while at < n:
            samples, spoken, heard = self._bank[int(np.searchsorted(self._odds, rng.random() * self._odds[-1]))]
            if rng.random() < mix.other_voices:
                samples, moved = other_voice(samples, RATE_HZ, rng)
                spoken, heard = _with_times(spoken, moved), _with_times(heard, moved)
            piece = samples[: n - at] * 10 ** (rng.uniform(-3, 3) / 20)
            pcm[at : at + len(piece)] += piece
            offset = np.array([0, at / RATE_HZ, at / RATE_HZ])
            words.append(spoken + offset)
            words[-1][spoken[:, 0] > self._last_id, 0] = FOREIGN
            sounds.append(heard + offset)
            short_s, long_s = mix.longest_s
            gap_s = rng.uniform(1.0, long_s) if rng.random() < mix.long_pauses else rng.uniform(0.0, short_s)
            at += len(samples) + int(gap_s * RATE_HZ)
        return Utterance(pcm=pcm, words=np.concatenate(words), sounds=np.concatenate(sounds))


def _with_times(rows: np.ndarray, moved: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return rows of (id, start, end in s) with their times moved."""
    return np.column_stack((rows[:, 0], moved(rows[:, 1]), moved(rows[:, 2])))
