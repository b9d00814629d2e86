"""Text tokens -> words. One assembler follows one lease from reset to reset.

The model says 3 (padding) while nothing happens, 0 when a word ends or the next one begins, and anything else as a
piece of the current word. A word appears with the first 0 or 3 after its pieces; a 0 also says where it ends:

    tokens   3  0  41  17  3   3  0   3
    events                 Word       EndWord         Word.start = time of the last 0 before it

Where every piece is a word of its own, nothing can follow one: the word appears with its piece, a frame earlier.

Source: moshi-server's rules (``docs/model.md``, section 7). Steps before the model's delay has passed are not fed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

END_OF_WORD: Final = 0
PADDING: Final = 3

MAX_PIECES: Final = 256
"""Pieces of one word: 20 s without a single 0 or 3. Only a model that is stuck gets there; the word is cut then."""

MAX_WORD_CHARS: Final = 4_096
"""What one word may have on the link."""


@dataclass(frozen=True, slots=True)
class WordSaid:
    """A word is complete; it began at ``start_s``."""

    text: str
    start_s: float


@dataclass(frozen=True, slots=True)
class WordEnded:
    """The last word ended at ``stop_s``."""

    stop_s: float


WordEvent: TypeAlias = WordSaid | WordEnded


class WordAssembler:
    """The word state of one lease.

    Args:
        detokenize: pieces to text.
        start_s: the time from which the first word counts.
        most_pieces: a word of so many is complete.
    """

    def __init__(
        self, detokenize: Callable[[list[int]], str], start_s: float = 0.0, *, most_pieces: int = MAX_PIECES
    ) -> None:
        self._detokenize = detokenize
        self._most_pieces = most_pieces
        self._pieces: list[int] = []
        self._is_said = False
        self._last_end_s = start_s

    @property
    def has_pieces(self) -> bool:
        """Whether pieces wait for the end of their word."""
        return bool(self._pieces)

    @property
    def is_open(self) -> bool:
        """Whether a word has pieces but was not said, or was said but has no end."""
        return self.has_pieces or self._is_said

    def take_over(self, *, is_said: bool) -> None:
        """Go on where another assembler was, whose last tokens were fed: ``is_said``: a word that has no end yet."""
        self._is_said = is_said

    def feed(self, token: int, time_s: float) -> list[WordEvent]:
        """Take the token of one step, which stands at ``time_s`` of the client's time."""
        events: list[WordEvent] = []
        is_piece = token not in (END_OF_WORD, PADDING)
        if is_piece:
            self._pieces.append(token)
        if self._pieces and (not is_piece or len(self._pieces) == self._most_pieces):
            text = self._detokenize(self._pieces)[:MAX_WORD_CHARS]
            events.append(WordSaid(text, self._last_end_s))
            self._pieces = []
            self._is_said = True
        if token == END_OF_WORD:
            if self._is_said:
                events.append(WordEnded(time_s))
                self._is_said = False
            self._last_end_s = time_s
        return events
