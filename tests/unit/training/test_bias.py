from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.config import ModuleConfig
from shared.errors import ConfigError
from training.bank import Bank
from training.bias import bias_padding, direction_of_one
from training.net import Net
from training.published import CONFIG_FILE, LM_FILE, MIMI_FILE, TOKENIZER_FILE, export

PAD = 3


def test_the_direction_is_found_along_which_all_rows_reach_equally_far() -> None:
    generator = torch.Generator().manual_seed(1)
    axis = torch.nn.functional.normalize(torch.randn(24, generator=generator), dim=0)
    rows = 3 * axis + 0.5 * torch.randn(4000, 24, generator=generator)
    direction, missed = direction_of_one(rows)
    found = torch.nn.functional.cosine_similarity(direction, axis, dim=0)
    assert found > 0.99
    assert missed == pytest.approx(0.5 / 3, rel=0.1)
    assert (rows @ direction).mean().item() == pytest.approx(1, abs=0.05)


def test_only_the_row_of_padding_changes_and_twice_the_bias_moves_it_twice_as_far(
    micro: ModuleConfig, micro_toml: Path, tone_bank: Bank, tmp_path: Path
) -> None:
    old = tmp_path / "old"
    export(Net(micro, seed=4), micro_toml, old)
    lines: list[str] = []
    for bias in (1.0, 2.0):
        bias_padding(old / "demo.toml", tone_bank, bias, tmp_path / f"{bias:g}", lines.append)
    assert len(lines) == 2
    assert {file.name for file in (tmp_path / "1").iterdir()} == {file.name for file in old.iterdir()}
    for name in (MIMI_FILE, TOKENIZER_FILE, CONFIG_FILE):
        assert (tmp_path / "1" / name).read_bytes() == (old / name).read_bytes()
    before, one, two = (load_file(tmp_path / name / LM_FILE) for name in ("old", "1", "2"))
    moved, further = (after["text_linear.weight"][PAD].float() for after in (one, two))
    start = before["text_linear.weight"][PAD].float()
    assert (moved - start).abs().max() > 0.01
    torch.testing.assert_close(further - start, 2 * (moved - start), atol=0.02, rtol=0)
    for name, tensor in before.items():
        if name == "text_linear.weight":
            one[name][PAD] = tensor[PAD]
        assert torch.equal(one[name], tensor), name


def test_a_checkpoint_is_not_written_over(
    micro: ModuleConfig, micro_toml: Path, tone_bank: Bank, tmp_path: Path
) -> None:
    export(Net(micro, seed=4), micro_toml, tmp_path)
    with pytest.raises(ConfigError, match="own folder"):
        bias_padding(tmp_path / "demo.toml", tone_bank, 0.5, tmp_path, print)
