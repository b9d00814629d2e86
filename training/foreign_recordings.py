"""What people say in other languages, and a little English, recorded for games and telephones that Debian packages.

Real voices that the model must keep silent about. They are of use beside real voices that say words of the vocabulary
(`training.people`) only: alone they teach that a real voice is no reason to speak. Nobody wrote down what is said when,
so each stretch of sound is one foreign word and its phones are unknown. Recordings named like a word of the vocabulary
("no" is one in many languages) are left out.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import soundfile
import soxr

from training.listing import listed
from training.loudness import STEPS_PER_S, loud_steps
from training.phones import UNKNOWN
from training.speech import Pcm, Sound, Span, Speech
from training.words import VOCABULARY

FOLDERS: Final = (
    Path("/usr/share/klettres"),
    Path("/usr/share/ktuberling/sounds"),
    Path("/usr/share/games/fillets-ng/sound"),
    Path("/usr/share/tuxpaint/stamps"),
    Path("/usr/share/asterisk/sounds/it_IT_m_Carlo"),
    Path("/usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU"),
)
"""Of the Debian packages klettres-data, ktuberling-data, fillets-ng-data-cs, tuxpaint-stamps-default and
asterisk-core-sounds-{it,ru}-wav."""

RATE_HZ: Final = 24_000
_SUFFIXES: Final = frozenset({".ogg", ".wav"})
_LONGEST_S: Final = 4.0
_SHORTEST_S: Final = 0.1
_GAP_S: Final = 0.25
"""Stretches of sound that are no further apart are one."""
_SILENT: Final = 0.04
"""Share of the loudest 10 ms below which there is silence."""
_SOUND_ALIKE: Final = frozenset({*VOCABULARY, *listed("da hi tu")})


def foreign_recordings(folders: Sequence[Path] = FOLDERS) -> Iterator[Speech]:
    """Read all recordings that are installed, in an order that does not change; what cannot be read is left out."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in _SUFFIXES]
    for path in paths:
        if _SOUND_ALIKE.intersection(re.split("[^a-z]+", path.stem.lower())):
            continue
        try:
            pcm, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError):
            continue
        speech = _speech(soxr.resample(pcm.mean(axis=1), rate_hz, RATE_HZ))
        if speech:
            yield speech


def _speech(pcm: Pcm) -> Speech | None:
    hop = RATE_HZ // STEPS_PER_S
    pcm = pcm[: int(_LONGEST_S * RATE_HZ)]
    loud = loud_steps(pcm, RATE_HZ, least=_SILENT)
    if len(loud) * hop < _SHORTEST_S * RATE_HZ:
        return None
    first, last = int(loud[0]), int(loud[-1]) + 1
    breaks = np.nonzero(np.diff(loud) > _GAP_S * STEPS_PER_S)[0]
    starts, ends = [first, *loud[breaks + 1]], [*(loud[breaks] + 1), last]
    times = [
        ((start - first) / STEPS_PER_S, (end - first) / STEPS_PER_S) for start, end in zip(starts, ends, strict=True)
    ]
    return Speech(
        pcm=pcm[first * hop : last * hop],
        rate_hz=RATE_HZ,
        words=tuple(Span(text="", start_s=float(start), end_s=float(end)) for start, end in times),
        sounds=(Sound(phone=UNKNOWN, start_s=0.0, end_s=(last - first) / STEPS_PER_S),),
    )
