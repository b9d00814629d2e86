"""The checkpoint that ships: words and times beside the samples were made by an independent implementation."""

import json
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pytest
import sentencepiece
import soundfile

from asr_worker.core.model import StepPlan
from asr_worker.model.loading import ModelFiles, load_model
from shared.config_file import load_config

DELAY = 6
N_SAMPLES = 8
N_SILENT_FRAMES = 16


def words_of(tokens: list[int], detokenize: Any) -> list[tuple[str, float, float]]:
    """The word rules of moshi-server once more, in the fewest lines."""
    words, pieces, start, last_stop = [], [], 0.0, 0.0
    pending = None
    for i, token in enumerate(tokens[DELAY - 1 :]):
        if token in {0, 3}:
            if pieces:
                pending, start, pieces = detokenize(pieces), last_stop, []
        else:
            pieces.append(token)
        if token == 0:
            last_stop = i / 12.5
            if pending is not None:
                words.append((pending, round(start, 2), round(last_stop, 2)))
                pending = None
    return words


@pytest.fixture(scope="module")
def demo(small: Any) -> Any:
    (module,) = load_config(small.demo / "demo.toml", {}).service.modules
    files = ModelFiles(
        lm=small.demo / module.lm_model_file,
        mimi=small.demo / module.audio_tokenizer_file,
        tokenizer=small.demo / module.text_tokenizer_file,
    )
    return load_model(module, files, device="cpu", threads=1, seed=1)


def test_the_demo_checkpoint_says_the_expected_words_at_the_expected_times(small: Any, demo: Any) -> None:
    assert demo.warnings == ()
    assert demo.facts.n_slots == N_SAMPLES
    samples = json.loads((small.demo / "samples" / "samples.json").read_text())
    audio = [soundfile.read(small.demo / "samples" / sample["file"], dtype="float32")[0] for sample in samples]
    n_frames = max(len(pcm) for pcm in audio) // 1920 + N_SILENT_FRAMES
    pcm = np.stack([np.pad(one, (0, n_frames * 1920 - len(one))) for one in audio])
    everyone = np.ones(N_SAMPLES, bool)
    text = []
    for frames in np.split(pcm, n_frames, axis=1):
        demo.launch(StepPlan(pcm=frames, active=everyone, reset=~everyone))
        text.append(demo.collect().text.copy())
    found = [words_of(tokens, demo.detokenize) for tokens in np.stack(text, axis=1).tolist()]
    assert found == [[(word, start, stop) for word, start, stop in sample["expected"]] for sample in samples]
    spoken = [word for sample in samples for word in sample["text"].split()]
    heard = [word for words in found for word, _, _ in words]
    right = sum(block.size for block in SequenceMatcher(None, spoken, heard, autojunk=False).get_matching_blocks())
    # As the model card says, it misses none of them and invents none.
    assert (len(spoken) - right, len(heard) - right) == (0, 0)


def test_the_page_is_told_the_words_that_the_demo_knows(small: Any) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(small.demo / "tokenizer.model"))
    known = [pieces.id_to_piece(i).removeprefix("\u2581") for i in range(4, pieces.vocab_size())]
    assert json.loads((small.demo / "samples" / "about.json").read_text())["words"] == known
