from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from asr_worker.model.loading import ModelFiles, load_model
from shared.config import ModuleConfig
from shared.errors import CheckpointError, ConfigError
from training.average import Trail, average
from training.net import Net
from training.published import LM_FILE, MIMI_FILE, export, module_of


@pytest.fixture
def two(micro: ModuleConfig, micro_toml: Path, tmp_path: Path) -> tuple[Path, Path]:
    for seed in (1, 2):
        net = Net(micro, seed=seed)
        net.codebooks.follow(net.mimi.quantizer, per_batch=64)
        export(net, micro_toml, tmp_path / str(seed))
    return tmp_path / "1", tmp_path / "2"


def test_every_number_is_the_average_and_the_worker_loads_it(two: tuple[Path, Path], tmp_path: Path) -> None:
    average([(0.25, two[0]), (0.75, two[1])], tmp_path / "mean")
    for file in (LM_FILE, MIMI_FILE):
        first, second, mean = (load_file(folder / file) for folder in (*two, tmp_path / "mean"))
        assert mean.keys() == first.keys()
        for name, tensor in mean.items():
            assert tensor.dtype == first[name].dtype
            wanted = 0.25 * first[name].float() + 0.75 * second[name].float()
            torch.testing.assert_close(tensor, wanted.to(tensor.dtype), msg=name)
    files = ModelFiles(
        lm=tmp_path / "mean" / LM_FILE, mimi=tmp_path / "mean" / MIMI_FILE, tokenizer=tmp_path / "mean/tokenizer.model"
    )
    load_model(module_of(tmp_path / "mean" / "demo.toml"), files, device="cpu", threads=1, seed=1)


@pytest.mark.parametrize("weights", [(0.5, 0.6), (1.5, -0.5)])
def test_weights_that_are_no_shares_are_refused(
    two: tuple[Path, Path], tmp_path: Path, weights: tuple[float, float]
) -> None:
    with pytest.raises(ConfigError, match="their sum 1"):
        average(list(zip(weights, two, strict=True)), tmp_path / "mean")


def test_it_writes_over_none_of_them(two: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="choose another folder"):
        average([(0.5, two[0]), (0.5, two[1])], two[0])


def test_checkpoints_of_other_sizes_are_refused_by_tensor(two: tuple[Path, Path], tmp_path: Path) -> None:
    tensors = load_file(two[1] / LM_FILE)
    tensors["text_emb.weight"] = torch.zeros(2, 2)
    save_file(tensors, two[1] / LM_FILE)
    with pytest.raises(CheckpointError, match=r"text_emb\.weight has shape \[2, 2\], in .* shape"):
        average([(0.5, two[0]), (0.5, two[1])], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_folder_that_is_no_checkpoints_is_refused_by_file(two: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/lm\.safetensors.*: no such file"):
        average([(0.5, two[0]), (0.5, tmp_path / "nowhere")], tmp_path / "mean")


def test_a_trail_is_an_average_in_which_later_weights_count_more() -> None:
    module = nn.Linear(1, 1, bias=False)
    trail = Trail(module)
    trail.take()  # of no step: the weights stay
    for value in (2.0, 5.0):
        module.weight.data.fill_(value)
        trail.add()
    trail.take()
    assert module.weight.item() == pytest.approx(0.2 * 2 + 0.8 * 5)
