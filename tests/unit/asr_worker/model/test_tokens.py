from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from asr_worker.model.tokens import Tokenizer
from shared.errors import CheckpointError


def test_pieces_become_words_and_ids_without_a_piece_nothing(small: Any) -> None:
    tokenizer = Tokenizer(small.demo / "tokenizer.model")
    assert tokenizer.n_pieces == 46
    (one,) = [token for token in range(46) if tokenizer.decode([token]) == "one"]
    assert tokenizer.decode([one, one]) == "one one"
    assert tokenizer.decode([one, 46, 10_000, -1]) == "one"


@pytest.mark.parametrize("content", [None, b"", b"no tokenizer", b"{}"])
def test_a_file_that_is_no_tokenizer_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        Tokenizer(path)
    expected = "there is no such file" if content is None else "is no SentencePiece model"
    assert str(caught.value).startswith(f"text_tokenizer_file {path}: {expected}")


def test_only_a_tokenizer_whose_every_piece_begins_a_word_has_whole_words(small: Any, tmp_path: Path) -> None:
    assert Tokenizer(small.demo / "tokenizer.model").whole_words
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["where words are longer than pieces", "pieces are shorter"] * 9),
        model_prefix=str(tmp_path / "pieces"),
        vocab_size=24,
        minloglevel=2,
    )
    assert not Tokenizer(tmp_path / "pieces.model").whole_words
