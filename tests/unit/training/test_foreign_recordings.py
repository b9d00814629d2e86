from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.bank import FOREIGN, Bank, write_bank
from training.foreign_recordings import foreign_recordings
from training.phones import UNKNOWN


def test_each_stretch_of_sound_in_a_recording_is_a_foreign_word_of_unknown_phones(
    tmp_path: Path, beep: Callable[..., None]
) -> None:
    beep(tmp_path / "sounds" / "hatt.wav", (0.5, 0), (0.4, 0.3), (0.1, 0), (0.2, 0.3), (0.6, 0), (0.5, 0.3), (0.3, 0))
    write_bank(tmp_path / "bank", foreign_recordings((tmp_path / "sounds",)))
    pcm, spoken, sounds = Bank(tmp_path / "bank")[0]
    assert len(pcm) / 24_000 == pytest.approx(1.8, abs=0.03)
    assert spoken[:, 0].tolist() == [FOREIGN, FOREIGN]
    np.testing.assert_allclose(spoken[:, 1:], [[0, 0.7], [1.3, 1.8]], atol=0.03)
    assert sounds[:, 0].tolist() == [UNKNOWN]


def test_recordings_that_may_hold_vocabulary_words_or_nothing_are_left_out(
    tmp_path: Path, beep: Callable[..., None]
) -> None:
    for name in ("it/no.wav", "en/green_hat.wav", "de/Go.wav"):
        beep(tmp_path / name, (0.5, 0.3))
    beep(tmp_path / "de" / "nichts.wav", (0.5, 0))
    (tmp_path / "de" / "kaputt.ogg").write_bytes(b"not a recording")
    beep(tmp_path / "de" / "hut.wav", (0.5, 0.3))
    assert len(list(foreign_recordings((tmp_path,)))) == 1
