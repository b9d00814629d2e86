"""Word error rate: how transcripts are compared with what was said."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Counts over one or many utterances; add them with ``+``."""

    n_words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    def __add__(self, other: "Errors") -> "Errors":
        """Pool two counts."""
        return Errors(
            n_words=self.n_words + other.n_words,
            substitutions=self.substitutions + other.substitutions,
            deletions=self.deletions + other.deletions,
            insertions=self.insertions + other.insertions,
        )

    @property
    def total(self) -> int:
        """Count all errors."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Return errors per word said; 0 where nothing was said."""
        return self.total / self.n_words if self.n_words else 0.0

    @property
    def half_width(self) -> float:
        """Return half of the 95 % interval of the rate (normal approximation of the binomial)."""
        if not self.n_words:
            return 0.0
        p = min(max(self.rate, 0.5 / self.n_words), 1.0)
        return 1.96 * float((p * (1 - p) / self.n_words) ** 0.5)


def align(said: Sequence[str], heard: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Return the cheapest pairing as (index said, index heard); None where a word is missing or invented."""
    cost = [[i + j if i == 0 or j == 0 else 0 for j in range(len(heard) + 1)] for i in range(len(said) + 1)]
    for i in range(1, len(said) + 1):
        for j in range(1, len(heard) + 1):
            same = cost[i - 1][j - 1] + (said[i - 1] != heard[j - 1])
            cost[i][j] = min(same, cost[i - 1][j] + 1, cost[i][j - 1] + 1)
    pairs: list[tuple[int | None, int | None]] = []
    i, j = len(said), len(heard)
    while i or j:
        if i and j and cost[i][j] == cost[i - 1][j - 1] + (said[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((i, j))
        elif i and cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((i, None))
        else:
            j -= 1
            pairs.append((None, j))
    return pairs[::-1]


def errors(said: Sequence[str], heard: Sequence[str]) -> Errors:
    """Count the errors of one transcript."""
    pairs = align(said, heard)
    return Errors(
        n_words=len(said),
        substitutions=sum(a is not None and b is not None and said[a] != heard[b] for a, b in pairs),
        deletions=sum(b is None for _, b in pairs),
        insertions=sum(a is None for a, _ in pairs),
    )
