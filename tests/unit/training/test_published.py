from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asr_worker.core.model import StepPlan
from asr_worker.model.loading import ModelFiles, load_model
from shared.config import ModuleConfig
from shared.errors import CheckpointError
from training.net import Net
from training.published import LM_FILE, export, module_of, read_published
from training.words import VOCABULARY


def files_of(folder: Path) -> ModelFiles:
    return ModelFiles(
        lm=folder / "lm.safetensors", mimi=folder / "mimi.safetensors", tokenizer=folder / "tokenizer.model"
    )


@pytest.fixture
def exported(micro: ModuleConfig, micro_toml: Path, tmp_path: Path) -> tuple[Net, Path]:
    net = Net(micro, seed=3)
    net.codebooks.follow(net.mimi.quantizer, per_batch=64)
    export(net, micro_toml, tmp_path)
    return net, tmp_path


def test_the_worker_loads_and_steps_what_training_exports(exported: tuple[Net, Path]) -> None:
    _, folder = exported
    model = load_model(module_of(folder / "demo.toml"), files_of(folder), device="cpu", threads=1, seed=1)
    assert model.warnings == ()
    n_slots = model.facts.n_slots
    pcm = np.zeros((n_slots, 1920), np.float32)
    model.launch(StepPlan(pcm=pcm, active=np.ones(n_slots, bool), reset=np.ones(n_slots, bool)))
    assert model.collect().text.shape == (n_slots,)
    assert [model.detokenize([4 + i]) for i in range(42)] == list(VOCABULARY[:42])


def test_a_published_checkpoint_is_read_back_as_it_was(exported: tuple[Net, Path], micro: ModuleConfig) -> None:
    net, folder = exported
    again = Net(micro, seed=9)
    read_published(again, module_of(folder / "demo.toml"), folder, per_batch=64)
    for name, parameter in again.mimi.named_parameters():
        torch.testing.assert_close(parameter, net.mimi.get_parameter(name), msg=name)
    for name, parameter in again.lm.named_parameters():
        torch.testing.assert_close(parameter, net.lm.get_parameter(name).bfloat16().float(), msg=name)


def test_a_file_of_other_sizes_is_refused(exported: tuple[Net, Path], micro: ModuleConfig) -> None:
    _, folder = exported
    save_file({"text_emb.weight": torch.zeros(2, 2)}, folder / LM_FILE)
    with pytest.raises(CheckpointError, match="text_emb"):
        read_published(Net(micro, seed=1), module_of(folder / "demo.toml"), folder, per_batch=64)
