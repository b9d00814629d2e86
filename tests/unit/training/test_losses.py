import pytest
import torch

from training.losses import misheard, weights, with_own_starts
from training.targets import PadWeights


def test_as_many_codes_are_wrong_as_asked_for_and_some_utterances_have_more() -> None:
    codes = torch.full((400, 64, 8), 7)

    def wrong(at_most_more: float) -> torch.Tensor:
        generator = torch.Generator().manual_seed(3)
        heard = misheard(codes, 256, generator, corrupted=0.03, at_most_more=at_most_more)
        return (heard != codes).float().mean(dim=(1, 2))

    usual, more = wrong(0.0), wrong(0.2)
    assert abs(usual.mean().item() - 0.03) < 0.003
    assert usual.max().item() < 0.08
    assert abs(more.mean().item() - (0.03 + 0.2 / 3)) < 0.01
    assert more.max().item() > 0.18
    assert more.median().item() < more.mean().item()


PADS = PadWeights(in_silence=0.5, in_foreign_words=2.0)
OPEN = PadWeights(in_silence=0.5, in_foreign_words=2.0, open_starts=True)


def row(*numbers: int) -> torch.Tensor:
    return torch.tensor([numbers])


def test_padding_counts_more_in_foreign_words_than_in_silence() -> None:
    text, foreign = row(3, 0, 7, 0, 3, 3), row(0, 0, 0, 1, 1, 1).bool()
    assert weights(text, text, foreign, PADS).tolist() == [[0.5, 1, 1, 1, 2, 2]]


def test_with_open_starts_padding_in_foreign_words_counts_after_a_zero_and_most_at_first() -> None:
    said = row(3, 0, 3, 3, 3, 3, 3, 0, 9, 3)
    text = row(3, 0, 3, 3, 3, 3, 3, 3, 3, 3)
    counts = weights(text, said, torch.ones(1, 10).bool(), OPEN)[0].tolist()
    assert counts[0] == counts[9] == 0.5, "nothing but a 0 could come"
    assert counts[1] == pytest.approx(0.6)
    assert counts[2:6] == pytest.approx([4.0, 3.34, 2.66, 2.14])
    assert counts[6] == counts[7] == 2.0, "the start is long ago"
    assert counts[8] == pytest.approx(4.0), "a wrong start is a start, too"
    known = weights(row(3, 0, 7, 3), row(3, 0, 7, 3), torch.zeros(1, 4).bool(), OPEN)
    assert known.tolist() == [[0.5, 1.5, 1, 0.5]]


def test_a_batch_that_is_met_again_holds_the_models_own_wrong_starts_and_no_stale_ones() -> None:
    text = torch.full((1000, 4), 3)
    text[:, 3] = 0
    said = text.clone()
    said[:, 1] = 0
    starts = torch.tensor([0.9, 0.01, 0.2, 0.01]).expand(1000, 4)
    met = with_own_starts(said, text, starts, torch.Generator().manual_seed(1))
    shares = (met == 0).float().mean(dim=0)
    assert abs(shares[0] - 0.8) < 0.05, "likely: mostly said"
    assert abs(shares[1] - 0.5) < 0.06, "unlikely: half of them forgotten"
    assert shares[2:].tolist() == [0, 1], "what is wanted stays"
