import torch

from training.losses import misheard


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
