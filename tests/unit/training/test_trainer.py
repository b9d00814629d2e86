import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_worker.core.model import StepPlan
from asr_worker.model.loading import ModelFiles, load_model
from shared.config import ModuleConfig
from training.bank import Bank
from training.decode import transcribe, words_of
from training.feed import fed
from training.net import Net
from training.progress import Phase, Schedule
from training.published import export, module_of
from training.trainer import Settings, Trainer
from training.utterance import Batch, UtteranceSource

N_FRAMES = 24


def batches(bank: Bank) -> Callable[[], Batch]:
    source = UtteranceSource(bank, n_frames=N_FRAMES, delay=6, n_words=42, seed=4, n_noises=2)
    return fed(source, size=4, seed=[4], device="cpu")


def trainer(
    micro: ModuleConfig, state: Path, steps: int, report: Callable[[str], None], *, log_every: int = 10
) -> Trainer:
    torch.set_num_threads(1)
    settings = Settings(
        state=state, schedule=Schedule(seconds=1, steps=steps, peak=3e-3), batch_size=4, seed=4, log_every=log_every
    )
    return Trainer(net=Net(micro, seed=4), n_frames=N_FRAMES, settings=settings, report=report)


def test_a_stopped_run_goes_on_where_it_was(micro: ModuleConfig, tone_bank: Bank, tmp_path: Path) -> None:
    lines: list[str] = []
    first = trainer(micro, tmp_path / "state.pt", 6, lines.append)
    first.run(batches(tone_bank))
    second = trainer(micro, tmp_path / "state.pt", 8, lines.append)
    assert (second.step, second.phase) == (6, Phase.DISCRETE)
    for name, tensor in first.net.state_dict().items():
        assert torch.equal(tensor, second.net.state_dict()[name]), name
    entries = second.net.mimi.quantizer.entries
    norms = second.net.mimi.quantizer.minus_half_norms
    torch.testing.assert_close(norms, entries.square().sum(-1) / -2)
    assert second.run(batches(tone_bank))
    assert second.step == 8
    assert {path.name for path in tmp_path.iterdir()} == {"state.pt", "joint.pt"}
    assert [line for line in lines if line.endswith(("continuous", "discrete", "settled"))] == [
        "step 0: continuous",
        "step 3: discrete",
        "step 7: settled",
    ]


def test_a_run_that_is_told_to_stop_keeps_what_it_has_learnt(
    micro: ModuleConfig, tone_bank: Bank, tmp_path: Path
) -> None:
    run = trainer(micro, tmp_path / "state.pt", 100, lambda _line: None)
    assert not run.run(batches(tone_bank), stopped=lambda: run.step == 2)
    assert trainer(micro, tmp_path / "state.pt", 100, lambda _line: None).step == 2


def test_a_run_that_is_settled_only_leaves_the_encoder_and_ends_on_the_average_of_its_way(
    micro: ModuleConfig, tone_bank: Bank, tmp_path: Path
) -> None:
    def run(steps: int) -> Trainer:
        schedule = Schedule(seconds=1, steps=steps, settled_only=True, peak=3e-3)
        settings = Settings(state=tmp_path / "state.pt", schedule=schedule, batch_size=4, seed=4, replayed=1)
        one = Trainer(net=Net(micro, seed=4), n_frames=N_FRAMES, settings=settings, report=lambda _line: None)
        one.run(batches(tone_bank))
        return one

    as_it_was = Net(micro, seed=4)
    as_it_was.round_encoder()
    run(3)
    whole = run(6)
    assert whole.trail.n_steps == 6
    for name, parameter in whole.net.mimi.named_parameters():
        assert torch.equal(parameter, as_it_was.mimi.get_parameter(name)), name
    last = torch.load(tmp_path / "state.pt", weights_only=True)
    linear = whole.net.lm.text_linear
    assert torch.equal(linear, last["trail"]["text_linear"])
    assert not torch.equal(linear, last["net"]["lm.text_linear"])
    assert not (tmp_path / "joint.pt").exists()


def test_with_open_starts_kept_batches_take_up_what_the_model_would_have_said(
    micro: ModuleConfig, tone_bank: Bank, tmp_path: Path
) -> None:
    source = UtteranceSource(tone_bank, n_frames=N_FRAMES, delay=6, n_words=42, seed=4, n_noises=2, open_starts=True)
    made: list[Batch] = []

    def next_batch() -> Batch:
        made.append(source.batch(4))
        return replace(made[-1], said=made[-1].said.copy())

    schedule = Schedule(seconds=1, steps=60, settled_only=True, peak=3e-3)
    settings = Settings(state=tmp_path / "state.pt", schedule=schedule, batch_size=4, seed=4, replayed=3)
    run = Trainer(net=Net(micro, seed=4), n_frames=N_FRAMES, settings=settings, report=lambda _line: None)
    run.run(next_batch)
    kept = torch.cat([wanted.said for _, wanted in run.kept])
    changed = kept != torch.from_numpy(np.concatenate([batch.said for batch in made]))
    wanted = torch.from_numpy(np.concatenate([batch.text for batch in made]))
    assert changed.any()
    assert set(wanted[changed].tolist()) == {3}
    assert set(kept[changed].tolist()) <= {0, 3}


def test_words_are_read_from_tokens_by_the_servers_rule() -> None:
    words = words_of(np.array([3, 3, 3, 3, 3, 0, 16, 3, 0, 3]), delay=6)
    assert [(word.text, word.start_s, word.stop_s) for word in words] == [("stop", 0.0, 0.24)]


@pytest.mark.timeout(180)
def test_training_from_nothing_lowers_the_loss_and_yields_a_checkpoint_that_the_worker_loads(
    micro: ModuleConfig, micro_toml: Path, tone_bank: Bank, tmp_path: Path
) -> None:
    lines: list[str] = []
    run = trainer(micro, tmp_path / "state.pt", 240, lines.append, log_every=20)
    run.run(batches(tone_bank))
    found = [float(match[1]) for line in lines if (match := re.search(r"text (\d+\.\d+)", line))]
    assert found[-1] < 0.6 * found[0]
    export(run.net, micro_toml, tmp_path)
    files = ModelFiles(
        lm=tmp_path / "lm.safetensors", mimi=tmp_path / "mimi.safetensors", tokenizer=tmp_path / "tokenizer.model"
    )
    model = load_model(module_of(tmp_path / "demo.toml"), files, device="cpu", threads=1, seed=1)
    pcm = np.concatenate([batches(tone_bank)().pcm] * 2)[: model.facts.n_slots]
    everyone = np.ones(model.facts.n_slots, bool)
    said = []
    for frame in range(N_FRAMES):
        part = pcm[:, frame * 1920 : (frame + 1) * 1920]
        model.launch(StepPlan(pcm=part, active=everyone, reset=everyone & (frame == 0)))
        said.append(model.collect().text.copy())
    assert all(len(one) == len(pcm) for one in said)
    assert len(transcribe(run.net.eval(), pcm)) == len(pcm)
