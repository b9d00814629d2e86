import torch

from asr_worker.model.quantizer import SplitQuantizer
from shared.config import MimiConfig

CONFIG = MimiConfig(dimension=12, codebook_size=20, codebook_dim=6)


def quantizer(n_codebooks: int = 4) -> SplitQuantizer:
    random = torch.Generator().manual_seed(0)
    made = SplitQuantizer(CONFIG, n_codebooks).requires_grad_(requires_grad=False)
    made.first_proj.copy_(torch.randn(6, 12, generator=random))
    made.rest_proj.copy_(torch.randn(6, 12, generator=random))
    for level in range(n_codebooks):
        usage = torch.rand(20, generator=random) + 0.5
        made.put_codebook(level, torch.randn(20, 6, generator=random) * usage[:, None], usage)
    return made


def nearest(x: torch.Tensor, entries: torch.Tensor) -> tuple[int, torch.Tensor]:
    distances = (entries - x).square().sum(-1)
    return int(distances.argmin()), entries[distances.argmin()]


def test_each_level_takes_the_nearest_entry_to_what_is_left() -> None:
    made = quantizer()
    latents = torch.randn(50, 12, generator=torch.Generator().manual_seed(1))
    expected = []
    for z in latents:
        codes = [nearest(made.first_proj @ z, made.entries[0])[0]]
        left = made.rest_proj @ z
        for level in (1, 2, 3):
            code, entry = nearest(left, made.entries[level])
            codes.append(code)
            left = left - entry
        expected.append(codes)
    assert made(latents).tolist() == expected
    assert len({tuple(codes) for codes in expected}) > 40


def test_fewer_codebooks_give_the_first_codes() -> None:
    latents = torch.randn(9, 12)
    assert torch.equal(quantizer(2)(latents), quantizer(4)(latents)[:, :2])
    assert torch.equal(quantizer(1)(latents), quantizer(4)(latents)[:, :1])


def test_an_entry_is_its_sum_over_its_usage() -> None:
    made = SplitQuantizer(CONFIG, 1)
    sums, usage = torch.randn(20, 6), torch.rand(20) + 0.5
    usage[3] = 0.0
    made.put_codebook(0, sums, usage)
    torch.testing.assert_close(made.entries[0, 0].detach(), sums[0] / usage[0])
    torch.testing.assert_close(made.entries[0, 3].detach(), sums[3] / 1e-5)
