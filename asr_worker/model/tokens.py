"""The text tokenizer: ids of SentencePiece pieces to text."""

from pathlib import Path
from typing import Final

import sentencepiece

from shared.errors import CheckpointError

_WORD_BEGINS: Final = "\u2581"
"""SentencePiece's mark for a space."""


class Tokenizer:
    """A SentencePiece model.

    Args:
        path: the ``.model`` file.

    Raises:
        CheckpointError: the file is missing or no SentencePiece model.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            msg = f"text_tokenizer_file {path}: there is no such file"
            raise CheckpointError(msg)
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            msg = f"text_tokenizer_file {path}: is no SentencePiece model: {error}"
            raise CheckpointError(msg) from error
        self.n_pieces: int = self._pieces.vocab_size()
        self.whole_words = all(
            self._pieces.id_to_piece(token).startswith(_WORD_BEGINS)
            for token in range(self.n_pieces)
            if not (self._pieces.is_control(token) or self._pieces.is_unknown(token))
        )
        """Whether every piece begins a word."""

    def decode(self, tokens: list[int]) -> str:
        """Return the text of ``tokens`` without a leading space; ids that are no piece say nothing."""
        text: str = self._pieces.decode([token for token in tokens if 0 <= token < self.n_pieces])
        return text.strip()
