"""One run of ``python -m training train``: a bank and something to begin with, a checkpoint at the end."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch

from shared.allocator import keep_freed_memory
from shared.config import ModuleConfig
from shared.errors import ConfigError
from training.bank import Bank
from training.feed import fed
from training.net import Net
from training.phone_heads import fit_phone_heads
from training.progress import Fare, Schedule
from training.published import CONFIG_FILE, export, module_of, read_published, take_over, words_of
from training.trainer import Settings, Trainer
from training.utterance import Batch, UtteranceSource

_PEAK, _PEAK_FROM_CHECKPOINT = 1.5e-3, 4e-4
"""At 8e-4 the loss of a run from the checkpoint that ships rose."""
_STATE_SUFFIX: Final = ".pt"
"""Of a run's state; a published checkpoint is named by its TOML file."""
_SETTLED_ONLY: Final = {"replay_batches": 6000, "replayed": 3}
"""Codes of an encoder that stands still from the beginning never grow old; some 80 kB a batch."""
_KEPT_BYTES: Final = (2 << 30) - 1
_FRAMES: Final = 64
"""Of an utterance: longer than the language model's context, so that it never leans on a session's start."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the command was asked for; what each means, its help says."""

    bank: Path
    out: Path
    minutes: float
    steps: int | None
    config: Path | None
    start_from: Path | None
    settled: bool
    foreign_weight: float | None
    open_starts: bool
    more_wrong_codes: float
    peak: float | None
    device: str
    batch: int
    seed: int

    @property
    def from_published(self) -> Path | None:
        """The TOML file of the checkpoint that it starts from, if it is one."""
        return None if self.start_from is None or self.start_from.suffix == _STATE_SUFFIX else self.start_from

    @property
    def sizes(self) -> Path:
        """The file with the sizes to train: what is wanted, or those of the checkpoint that it starts from."""
        return self.config or self.from_published or Path(__file__).with_name(CONFIG_FILE)

    @property
    def highest_rate(self) -> float:
        """The highest learning rate: what is wanted, or what did well from nothing or from a checkpoint."""
        if self.peak is not None:
            return self.peak
        return _PEAK if self.start_from is None else _PEAK_FROM_CHECKPOINT

    @property
    def schedule(self) -> Schedule:
        """Phases and rates."""
        return Schedule(
            seconds=60 * self.minutes,
            steps=self.steps,
            resumed=self.start_from is not None,
            settled_only=self.settled,
            peak=self.highest_rate,
        )

    @property
    def settings(self) -> Settings:
        """What the trainer needs to know."""
        return Settings(
            state=self.out / "state.pt",
            schedule=self.schedule,
            batch_size=self.batch,
            device=self.device,
            seed=self.seed,
            more_wrong_codes=self.more_wrong_codes,
            **(_SETTLED_ONLY if self.settled else {}),
        )


def train(run: Run, say: Callable[[str], None]) -> None:
    """Train until the run's time is over or a signal stops it; in the former case export a checkpoint.

    Raises:
        ConfigError: the encoder is to stand still and there is none that has learnt.
    """
    if run.settled and run.from_published is None:
        message = "--settled needs --start-from with the TOML of a checkpoint: its encoder stands still"
        raise ConfigError(message)
    torch.set_num_threads(1)
    # Fresh pages for every tensor, each cleared by the system first, were a fifth of a step.
    keep_freed_memory(_KEPT_BYTES)
    run.out.mkdir(parents=True, exist_ok=True)
    module = module_of(run.sizes)
    net = _net(run, module, say)
    trainer = Trainer(net=net, n_frames=_FRAMES, settings=run.settings, report=say)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    next_batch = _batches(run, module, trainer)
    if run.from_published and trainer.step == 0 and not run.settled:
        say(f"phone heads taught, loss {fit_phone_heads(net, next_batch, run.device, stopped=stop.is_set):.3f}")
    if not trainer.run(next_batch, stop.is_set):
        say(f"stopped at step {trainer.step}; the same command goes on from {run.settings.state}")
        return
    export(net, run.sizes, run.out)
    say(f"wrote {run.out / CONFIG_FILE}")


def _net(run: Run, module: ModuleConfig, say: Callable[[str], None]) -> Net:
    net = Net(module, run.seed)
    if run.from_published:
        missed = read_published(net, module_of(run.from_published), run.from_published.parent, run.batch * _FRAMES)
        say(f"starting from {run.start_from}; the bridge misses {100 * missed:.2f} % of its audio tables")
    elif run.start_from:
        take_over(net, torch.load(run.start_from, weights_only=True)["net"])
        net.codebooks.write(net.mimi.quantizer)
        say(f"starting from {run.start_from}")
    return net


def _batches(run: Run, module: ModuleConfig, trainer: Trainer) -> Callable[[], Batch]:
    bank, schedule = Bank(run.bank), run.schedule

    # Made when the run gets there. A resumed run must not hear the first batches again.
    @cache
    def feed(fare: Fare) -> Callable[[], Batch]:
        utterances = UtteranceSource(
            bank,
            n_frames=_FRAMES,
            delay=module.delay_frames,
            n_words=len(words_of(module)),
            seed=run.seed,
            fare=fare,
            foreign_weight=run.foreign_weight,
            open_starts=run.open_starts,
        )
        return fed(utterances, size=run.batch, seed=[run.seed, trainer.step], device=run.device)

    def next_batch() -> Batch:
        return feed(schedule.fare(schedule.done(trainer.elapsed_s, trainer.step), trainer.step))()

    return next_batch
