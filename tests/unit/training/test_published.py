from dataclasses import replace
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
from training.published import LM_FILE, export, module_of, read_published, take_over
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
    net.round_encoder()
    for name, parameter in again.mimi.named_parameters():
        torch.testing.assert_close(parameter, net.mimi.get_parameter(name), msg=name)
    for name, parameter in again.lm.named_parameters():
        torch.testing.assert_close(parameter, net.lm.get_parameter(name).bfloat16().float(), msg=name)


def test_a_file_of_other_sizes_is_refused(exported: tuple[Net, Path], micro: ModuleConfig) -> None:
    _, folder = exported
    save_file({"text_emb.weight": torch.zeros(2, 2)}, folder / LM_FILE)
    with pytest.raises(CheckpointError, match="text_emb"):
        read_published(Net(micro, seed=1), module_of(folder / "demo.toml"), folder, per_batch=64)


def test_a_deeper_network_starts_by_hearing_what_the_shallower_one_heard(
    exported: tuple[Net, Path], micro: ModuleConfig
) -> None:
    _, folder = exported
    sizes = replace(micro.model.transformer, num_layers=micro.model.transformer.num_layers + 2)
    deeper = replace(
        micro,
        model=replace(micro.model, transformer=sizes),
        mimi=replace(micro.mimi, num_layers=micro.mimi.num_layers + 1),
    )
    nets = [Net(module, seed=seed).eval() for seed, module in ((1, micro), (2, deeper))]
    text, pcm = torch.full((1, 5), 3), 0.1 * torch.randn(1, 4 * 1920)
    heard = []
    for net in nets:
        read_published(net, module_of(folder / "demo.toml"), folder, per_batch=64)
        heard.append(net(pcm, text, discrete=True))
    torch.testing.assert_close(heard[1].latents, heard[0].latents)
    torch.testing.assert_close(heard[1].text, heard[0].text)


def test_what_a_network_has_no_place_for_is_refused_by_name(micro: ModuleConfig) -> None:
    net = Net(micro, seed=1)
    old = net.state_dict()
    old["lm.transformer.layers.9.norm1.alpha"] = torch.ones(1, 1, 32)
    old["bridge.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError) as caught:
        take_over(net, old)
    assert caught.value.problems == (
        f"bridge.bias: has shape [3], [{micro.model.transformer.d_model}] is wanted",
        "lm.transformer.layers.9.norm1.alpha: the network has no such tensor",
    )
