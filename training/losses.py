"""What the network is trained to get right, and how much each of it counts."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from training.net import Heard
from training.phones import UNKNOWN
from training.targets import END_OF_WORD, PAD, PadWeights

_TEXT: Final = 2.0
_PHONES: Final = 1.0
_PHONES_FIRST: Final = 0.3
_COMMIT: Final = 0.25
_PAUSES: Final = 0.1
_AFTER_START: Final = (2.0, 1.67, 1.33, 1.07)
"""Open starts: what padding counts in the first steps after a 0 in a foreign word, in units of its usual weight."""
_KNOWN_START, _FOREIGN_START = 1.5, 0.6
"""Open starts: what a wanted 0 counts. One too many does no harm, one too few loses a word."""
_LIKELY_START, _UNLIKELY_START = 0.4, 0.15
_TAKEN, _FORGOTTEN = 0.8, 0.5
"""Shares of the likely wrong 0s that a kept batch takes up, and of the unlikely ones that it forgets."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The targets of a batch as tensors; shapes as in `training.targets`, with a batch axis in front."""

    text: Tensor
    said: Tensor
    foreign: Tensor
    pause: Tensor
    phones: Tensor
    pads: PadWeights

    @property
    def weight(self) -> Tensor:
        """What each step counts, ``[B, F + 1]``."""
        return weights(self.text, self.said, self.foreign, self.pads)


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The sum to descend, and its parts for the log."""

    total: Tensor
    text: Tensor
    phones: Tensor
    commit: Tensor
    pauses: Tensor
    word_accuracy: Tensor
    """Share of the words whose piece has the best score where it should be said, given the right text so far."""
    false_words: Tensor
    """Share of the steps without a piece at which some piece has the best score."""


def losses(heard: Heard, wanted: Wanted) -> Losses:
    """Compare what was heard with what was wanted."""
    text, pauses = text_losses(heard.text, heard.pauses, wanted.text, wanted.weight, wanted.pause)
    phones = phone_loss(heard.phones, wanted.phones)
    first = phone_loss(heard.phones_first, wanted.phones)
    commit = heard.quantised.commit if heard.quantised else text.new_zeros(())
    total = _TEXT * text + _PHONES * phones + _PHONES_FIRST * first + _PAUSES * pauses
    total = total + _COMMIT * commit
    best = heard.text.argmax(dim=-1)
    is_piece = wanted.text > PAD
    right = (best == wanted.text)[is_piece].float().mean()
    return Losses(
        total=total,
        text=text.detach(),
        phones=phones.detach(),
        commit=commit.detach(),
        pauses=pauses.detach(),
        word_accuracy=right,
        false_words=(best > PAD)[~is_piece].float().mean(),
    )


def text_losses(scores: Tensor, pauses: Tensor, text: Tensor, weight: Tensor, pause: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weighted loss of the text and the loss of the pause heads."""
    each = functional.cross_entropy(scores.float().flatten(0, 1), text.flatten(), reduction="none")
    text_loss = (each * weight.flatten()).sum() / weight.sum()
    return text_loss, functional.cross_entropy(pauses.float().flatten(0, 2), pause.flatten())


def weights(text: Tensor, said: Tensor, foreign: Tensor, pads: PadWeights) -> Tensor:
    """Return what each step counts, ``[B, F + 1]``; a step of a word counts 1.

    With open starts a piece is likely in the first steps after a 0 only. In foreign words padding counts most there,
    and the more the earlier: who is not sure yet can still wait. Elsewhere in them only a 0 could come, which does
    no harm.
    """
    is_pad = text == PAD
    weight = torch.where(is_pad, torch.where(foreign, pads.in_foreign_words, pads.in_silence), 1.0)
    if not pads.open_starts:
        return weight
    start = torch.where(foreign, _FOREIGN_START, _KNOWN_START)
    weight = torch.where(text == END_OF_WORD, start, weight)
    since = steps_since_start(said)
    weight = torch.where(is_pad & foreign & (since == 0), pads.in_silence, weight)
    for steps, factor in enumerate(_AFTER_START, start=1):
        weight = torch.where(is_pad & foreign & (since == steps), factor * pads.in_foreign_words, weight)
    return weight


def steps_since_start(said: Tensor) -> Tensor:
    """Return for each step how long ago the last 0 was, ``[B, F + 1]``; 0 if a piece came after it or there is none."""
    since = torch.zeros_like(said)
    now = torch.zeros_like(said[:, 0])
    for step in range(said.shape[1]):
        since[:, step] = now
        now = torch.where(said[:, step] > PAD, 0, torch.where(now > 0, now + 1, 0))
        now = torch.where(said[:, step] == END_OF_WORD, 1, now)
    return since


def fed_text(text: Tensor, start_token: int, generator: torch.Generator, corrupted: float) -> Tensor:
    """Return what each step is fed: the token before it, now and then a wrong one.

    A server feeds back what the model said; seeing only right text in training would make one error breed others.
    """
    known = text.cpu()
    fed = torch.cat((torch.full_like(known[:, :1], start_token), known[:, :-1]), dim=1)
    chance = torch.rand(fed.shape, generator=generator)
    others = torch.randint(0, start_token, fed.shape, generator=generator)
    # A word that was not fed would be one that was not said: that teaches to skip words. Only others turn to padding.
    to_padding = (torch.rand(fed.shape, generator=generator) < 0.7) & (fed <= PAD)  # noqa: PLR2004
    wrong = torch.where(to_padding, torch.full_like(fed, PAD), others)
    is_wrong = chance < corrupted
    is_wrong[:, 0] = False
    return torch.where(is_wrong, wrong, fed).to(text.device)


def with_own_starts(said: Tensor, text: Tensor, starts: Tensor, generator: torch.Generator) -> Tensor:
    """Return what was said, with the 0s that the model would have said where none is wanted, and without others.

    A kept batch is met again, and the model should have learnt to live with its own wrong starts by then.

    Args:
        said: tokens ``[B, F + 1]``.
        text: those that are wanted.
        starts: the model's probabilities of a 0.
        generator: of everything drawn.
    """
    draw = torch.rand(said.shape, generator=generator).to(said.device)
    wrong = (said == END_OF_WORD) & (text == PAD)
    forgotten = wrong & (starts < _UNLIKELY_START) & (draw < _FORGOTTEN)
    said = torch.where(forgotten, PAD, said)
    fresh = (said == PAD) & (text == PAD) & (starts > _LIKELY_START) & (draw < _TAKEN)
    return torch.where(fresh, END_OF_WORD, said)


def misheard(
    codes: Tensor, n_entries: int, generator: torch.Generator, *, corrupted: float, at_most_more: float
) -> Tensor:
    """Return codes ``[B, F, n]`` of which some are wrong: a voice never heard has other codes than those in training.

    Args:
        codes: what the encoder said.
        n_entries: of a codebook.
        generator: of everything drawn.
        corrupted: share of wrong codes.
        at_most_more: further ones that an utterance may have; each draws its own share, a small one mostly.
    """
    random = torch.randint(0, n_entries, codes.shape, generator=generator)
    shares = torch.full((len(codes), 1, 1), corrupted)
    if at_most_more:
        shares += at_most_more * torch.rand(shares.shape, generator=generator).square()
    is_wrong = torch.rand(codes.shape, generator=generator) < shares
    return torch.where(is_wrong.to(codes.device), random.to(codes.device), codes)


def phone_loss(scores: Tensor, phones: Tensor) -> Tensor:
    """Return the loss of scores ``[..., 6, phones]`` for the phones ``[..., 6]`` of as many frames."""
    return functional.cross_entropy(scores.float().flatten(0, -2), phones.flatten(), ignore_index=UNKNOWN)
