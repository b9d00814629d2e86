import random
from collections.abc import Callable
from pathlib import Path

import pytest

from training import prompts
from training.espeak import SynthesisError
from training.words import VOCABULARY


def test_a_missing_prompt_names_the_package_it_comes_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    with pytest.raises(SynthesisError, match="asterisk-core-sounds-en-wav"):
        prompts.played("seven", "en")


def test_a_prompt_is_its_word_without_the_silence_around_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, beep: Callable[..., None]
) -> None:
    monkeypatch.setattr(prompts, "FOLDER", tmp_path)
    beep(tmp_path / prompts.PEOPLE["en"] / "digits" / "7.wav", (0.4, 0), (0.5, 0.3), (0.6, 0))
    speech = prompts.played("seven", "en")
    assert [(word.text, word.start_s) for word in speech.words] == [("seven", 0.0)]
    assert speech.words[0].end_s == pytest.approx(0.5, abs=0.03)


def test_no_word_of_the_vocabulary_is_drawn_as_a_foreign_one() -> None:
    known = {prompts.RECORDED[word] for word in prompts.known(VOCABULARY)}
    assert len(known) == len(prompts.RECORDED)
    rng = random.Random(1)
    drawn = {prompts.foreign_english(rng).words[0] for _ in range(2000)}
    assert len(drawn) > 70
    assert not drawn & known


def test_only_words_of_the_vocabulary_are_known() -> None:
    assert prompts.known(("today", "monday", "light")) == ("today", "monday")
