import torch

from asr_worker.model.sampling import Sampler

CPU = torch.device("cpu")


def test_without_temperature_the_best_token_wins_and_ties_go_to_the_first() -> None:
    sampler = Sampler(temperature=0.0, seed=1, device=CPU)
    assert sampler.generator is None
    assert sampler.sample(torch.tensor([[0.0, 2.0, 2.0], [3.0, 1.0, 2.0]])).tolist() == [1, 0]


def test_scores_are_compared_in_their_own_dtype() -> None:
    """Rounded to bfloat16 the two are equal, and the first wins."""
    scores = torch.tensor([[16.0, 16.03]])
    sampler = Sampler(temperature=0.0, seed=1, device=CPU)
    assert sampler.sample(scores).tolist() == [1]
    assert sampler.sample(scores.bfloat16()).tolist() == [0]


def test_tokens_are_drawn_nearly_as_often_as_softmax_says() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0])
    sampler = Sampler(temperature=0.5, seed=1, device=CPU)
    drawn = sampler.sample(scores.expand(50_000, 3))
    shares = torch.bincount(drawn, minlength=3) / 50_000
    torch.testing.assert_close(shares, torch.softmax(scores / 0.5, 0), atol=0.01, rtol=0)


def test_a_token_far_behind_is_never_drawn() -> None:
    """The noise is clipped: beyond 9.69 temperatures there is no chance at all."""
    sampler = Sampler(temperature=1.0, seed=1, device=CPU)
    near = sampler.sample(torch.tensor([0.0, 7.0]).expand(200_000, 2))
    far = sampler.sample(torch.tensor([0.0, 9.7]).expand(200_000, 2))
    assert (near == 0).any()
    assert not (far == 0).any()


def test_a_seed_repeats_the_draws_and_a_restart_too() -> None:
    scores = torch.zeros(1, 1000)

    def drawn(sampler: Sampler) -> list[int]:
        return [int(sampler.sample(scores)) for _ in range(5)]

    sampler = Sampler(temperature=1.0, seed=7, device=CPU)
    first = drawn(sampler)
    assert drawn(sampler) != first
    sampler.restart()
    assert drawn(sampler) == first
    assert drawn(Sampler(temperature=1.0, seed=7, device=CPU)) == first
    assert drawn(Sampler(temperature=1.0, seed=8, device=CPU)) != first
