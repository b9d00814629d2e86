"""What the demo model's card promises, through the service: the shipped samples and a hundred fresh utterances.

Needs Debian's libespeak-ng1 and flite to make fresh ones; skipped where they are not installed.
"""

import asyncio
import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "asr_worker" / "demo"
sys.path.insert(0, str(ROOT))  # the training package is not installed: nothing that ships needs it

from training.figures import figures  # noqa: E402
from training.served import Answer, serving, transcribe_all  # noqa: E402
from training.speech import Span  # noqa: E402
from training.testset import Recording, Studio, Voices  # noqa: E402
from training.words import PROTOTYPE_WORDS  # noqa: E402

STATED_RATE = 0.03
"""Of espeak-ng's trained voices, clean, as the model card says."""
STATED_FLITE_RATE = 0.03
"""Of flite's trained speakers: more than the worst of the three on the card."""
STATED_FALSE_SHARE = 0.05
"""Words heard for each foreign one, of synthetic ones that exist, as the card says of this set."""
STATED_ALMOST_SHARE = 0.23
"""The same of made-up ones that differ from a known word in one sound."""

MOST_IN_BABBLE = 1
"""False words in a minute of people talking at once: none in three minutes, and one for another machine's rounding."""


def has_voices() -> bool:
    try:
        for name in ("libespeak-ng.so.1", "libflite_cmu_us_rms.so.1"):
            ctypes.CDLL(name)
    except OSError:
        return False
    return True


def samples() -> list[Recording]:
    found = []
    for entry in json.loads((DEMO / "samples" / "samples.json").read_text()):
        pcm, _ = soundfile.read(DEMO / "samples" / entry["file"], dtype="float32")
        words = tuple(Span(text=word, start_s=start_s, end_s=end_s) for word, start_s, end_s in entry["words"])
        found.append(Recording(pcm=pcm, words=words))
    return found


async def transcribed(toml: Path, recordings: list[Recording]) -> list[Answer]:
    async with serving(toml) as service:
        return await transcribe_all(service, recordings, at_once=6, speed=0)


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.skipif(not has_voices(), reason="libespeak-ng1 and flite are not installed")
def test_samples_and_a_hundred_fresh_utterances_stay_within_the_stated_word_error_rate() -> None:
    studio = Studio(2026, Voices(), PROTOTYPE_WORDS)
    fresh = studio.record(100, studio.espeak(held_out=False), studio.known, length_s=5.0)
    recordings = [*samples(), *fresh]
    answers = asyncio.run(transcribed(DEMO / "demo.toml", recordings))
    found = figures(recordings, answers)
    assert found.errors.n_words > 400
    assert found.errors.rate <= STATED_RATE + margin_of(STATED_RATE, found.errors.n_words)
    assert found.start_error_ms is not None
    assert found.start_error_ms <= 40


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.skipif(not has_voices(), reason="libespeak-ng1 and flite are not installed")
def test_flites_speakers_foreign_words_and_noise_stay_within_what_the_card_states() -> None:
    studio = Studio(2027, Voices(), PROTOTYPE_WORDS)
    known = [one for name in ("awb", "rms", "slt") for one in studio.record(10, studio.flite(name), studio.known)]
    foreign = list(studio.record(24, studio.flite("rms"), studio.foreign))
    almost = list(studio.record(24, studio.flite("rms"), studio.almost_known))
    noise = [Recording(pcm=0.05 * studio.noises(kind, 60.0), words=()) for kind in ("babble", "music", "clicks", "hum")]
    answers = asyncio.run(transcribed(DEMO / "demo.toml", [*known, *foreign, *almost, *noise]))
    spoken = figures(known, answers[:30])
    assert spoken.errors.rate <= STATED_FLITE_RATE + margin_of(STATED_FLITE_RATE, spoken.errors.n_words)
    for recordings, heard, stated in (
        (foreign, answers[30:54], STATED_FALSE_SHARE),
        (almost, answers[54:78], STATED_ALMOST_SHARE),
    ):
        unknown = figures(recordings, heard)
        assert unknown.n_false <= unknown.n_foreign * (stated + margin_of(stated, unknown.n_foreign))
    assert figures(noise[:1], answers[78:79]).n_false <= MOST_IN_BABBLE
    assert figures(noise[1:], answers[79:]).n_false == 0


def margin_of(share: float, n: int) -> float:
    """Return the half-width of the 95 % interval."""
    return float(1.96 * np.sqrt(share * (1 - share) / n))
