"""Choosing a text token from scores: the best, or by temperature with clipped Gumbel noise.

Source: docs/model.md, section 6. The uniform numbers end at 0.999, so the noise stays below 6.91 and a token that
trails the best by more than 9.69 temperatures is never drawn.
"""

from typing import Final

import torch
from torch import Tensor

MIN_UNIFORM: Final = 1e-7
MAX_UNIFORM: Final = 0.999


class Sampler:
    """Draws one token for each row; one stream of random numbers serves the whole batch.

    Args:
        temperature: 0 or less means the best token.
        seed: of the noise.
        device: where the scores are.
    """

    def __init__(self, *, temperature: float, seed: int, device: torch.device) -> None:
        self._temperature = temperature
        self._seed = seed
        self.generator: torch.Generator | None = None
        if temperature > 0:
            self.generator = torch.Generator(device)
            self.restart()

    def restart(self) -> None:
        """Begin the stream of random numbers anew."""
        if self.generator is not None:
            self.generator.manual_seed(self._seed)

    def sample(self, scores: Tensor) -> Tensor:
        """Map scores ``[B, V]`` to tokens ``[B]`` int64. Ties go to the first, in the dtype of the scores."""
        if self.generator is None:
            return scores.argmax(dim=-1)
        uniform = torch.rand(scores.shape, generator=self.generator, device=scores.device)
        uniform = MIN_UNIFORM + (MAX_UNIFORM - MIN_UNIFORM) * uniform
        return (scores.float() - self._temperature * torch.log(-torch.log(uniform))).argmax(dim=-1)
