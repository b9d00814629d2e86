"""One training run: batches in, a better network out; stops by time, can be stopped and resumed at any step."""

import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.average import Trail
from training.encoder import latents_of
from training.losses import Losses, Wanted, fed_text, losses, misheard, text_losses, with_own_starts
from training.net import Net
from training.optimiser import Optimiser
from training.precision import mixed
from training.progress import Phase, Schedule
from training.targets import END_OF_WORD, PAD, PadWeights
from training.utterance import Batch

JOINT_STATE: Final = "joint.pt"
"""The state before the encoder settled: a later, longer run goes on from a copy of it as its state."""

_CORRUPTED_TEXT, _CORRUPTED_OPEN = 0.12, 0.06
"""Share of what is fed that is wrong. Where starts are open, less: what was said differs from what is wanted anyway."""
_CORRUPTED_CODES: Final = 0.03
_FRONT_EVERY, _FRONT_EVERY_DISCRETE = 2, 8
"""The encoder's first stage learns in one step of so many: it is a quarter of a step's cost."""
_REPLAY_EVERY: Final = 2
_REPLAY_JOINT: Final = 32
"""While the encoder learns, codes older than so many batches are no longer what it would say."""
_FIT_LATENTS_PER_ENTRY: Final = 32


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run needs to know."""

    state: Path
    """File of the run's state: written now and then, read at the start if it is there."""
    schedule: Schedule
    batch_size: int = 8
    device: str = "cpu"
    seed: int = 1
    save_every_s: float = 180.0
    log_every: int = 25
    replay_batches: int = 96
    """Codes of so many batches are kept and used again in the settled phase."""
    replayed: int = 2
    """So many of them are learnt from beside each new one."""
    more_wrong_codes: float = 0.0
    """Largest share of an utterance's codes that is wrong beside the usual 3 %; mostly it is much less."""


@dataclass
class Trainer:
    """A network, its optimiser and where they stand."""

    net: Net
    n_frames: int
    """F of every batch."""
    settings: Settings
    report: Callable[[str], None]
    step: int = 0
    elapsed_s: float = 0.0
    phase: Phase | None = None
    kept: deque[tuple[Tensor, Wanted]] = field(default_factory=deque)
    """Codes of batches that are learnt from again, with their targets."""

    def __post_init__(self) -> None:
        """Make the optimiser and take up a stored state."""
        settings = self.settings
        self.net.to(settings.device)
        self._generator = torch.Generator().manual_seed(settings.seed)
        self.trail = Trail(self.net.lm)
        torch.manual_seed(settings.seed)
        self.optimiser = Optimiser(self.net, settings.schedule.peak)
        if settings.state.exists():
            self._load()

    def run(self, next_batch: Callable[[], Batch], stopped: Callable[[], bool] = lambda: False) -> bool:
        """Train on what ``next_batch`` returns; tell whether the schedule is over or somebody ``stopped`` it."""
        self._next_batch = next_batch
        self.net.train()
        # Over 65 positions the plain products beat the fused kernel, whose backward pass is slow on CPU.
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(enabled=True)
        with sdpa_kernel(SDPBackend.MATH) if self.settings.device == "cpu" else nullcontext():
            return self._run(stopped)

    def _run(self, stopped: Callable[[], bool]) -> bool:
        last_save = self.elapsed_s
        recent: deque[Losses] = deque(maxlen=self.settings.log_every)
        while (done := self.settings.schedule.done(self.elapsed_s, self.step)) < 1 and not stopped():
            start = time.perf_counter()
            self._enter(self.settings.schedule.phase(done))
            self.optimiser.set_rate(self.settings.schedule.learning_rate(done, self.step))
            recent.append(self._settled_step() if self.phase is Phase.SETTLED else self._joint_step())
            self.step += 1
            self.elapsed_s += time.perf_counter() - start
            if self.step % self.settings.log_every == 0:
                self.report(self._line(recent, done))
            if self.elapsed_s - last_save > self.settings.save_every_s:
                self.save()
                last_save = self.elapsed_s
        self.save()
        if done >= 1:
            self.trail.take()
        return done >= 1

    def save(self, path: Path | None = None) -> None:
        """Write the state, to its file if no other is given; a crash while writing leaves the old one."""
        path = path or self.settings.state
        state = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "elapsed_s": self.elapsed_s,
            "phase": self.phase.value if self.phase else None,
            "trail": self.trail.mean,
            "trail_steps": self.trail.n_steps,
        }
        fresh = path.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(path)

    def _load(self) -> None:
        state = torch.load(self.settings.state, map_location=self.settings.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.net.codebooks.write(self.net.mimi.quantizer)
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.elapsed_s = state["step"], state["elapsed_s"]
        self.trail.mean, self.trail.n_steps = state["trail"], state["trail_steps"]
        self.phase = Phase(state["phase"]) if state["phase"] else None
        if self.phase:
            self._hold_still(self.phase)
        self._generator.manual_seed(self.settings.seed + self.step)

    def _enter(self, phase: Phase) -> None:
        if phase is self.phase:
            return
        if self.phase is Phase.CONTINUOUS and phase is not Phase.CONTINUOUS:
            self._fit_codebooks()
        if phase is Phase.SETTLED:
            if not self.settings.schedule.settled_only:
                self.save(self.settings.state.with_name(JOINT_STATE))
                self.net.tables_from_bridge()
            self.net.round_encoder()
            self.kept.clear()
        self._hold_still(phase)
        self.report(f"step {self.step}: {phase.value}")
        self.phase = phase

    def _hold_still(self, phase: Phase) -> None:
        """Keep what no longer learns from learning: the projections, beside codebooks that follow; then all of Mimi.

        Latents grow to a root mean square of 8. A step of the projections then moves what the codebooks see further
        than they can follow, and within a few hundred steps the run diverges.
        """
        if phase is not Phase.CONTINUOUS:
            self.net.mimi.quantizer.requires_grad_(requires_grad=False)
        if phase is Phase.SETTLED:
            self.net.mimi.requires_grad_(requires_grad=False)

    @torch.no_grad()
    def _fit_codebooks(self) -> None:
        rows: list[Tensor] = []
        while sum(len(latents) for latents in rows) < _FIT_LATENTS_PER_ENTRY * self.net.module.mimi.codebook_size:
            pcm = self._tensor(self._next_batch().pcm)
            rows.append(latents_of(self.net.mimi, pcm).flatten(0, 1).float())
        latents = torch.cat(rows)
        self.net.codebooks.fit(self.net.mimi.quantizer, latents, self._generator)
        self.net.codebooks.follow(self.net.mimi.quantizer, self._latents_per_batch)

    @property
    def _latents_per_batch(self) -> int:
        return self.settings.batch_size * self.n_frames

    def _joint_step(self) -> Losses:
        batch = self._next_batch()
        wanted = self._wanted(batch)
        fed = self._fed(wanted.said, wanted.pads)
        discrete = self.phase is Phase.DISCRETE
        learn_front = self.step % (_FRONT_EVERY_DISCRETE if discrete else _FRONT_EVERY) == 0
        with mixed(self.settings.device):
            heard = self.net(self._tensor(batch.pcm), fed, discrete=discrete, learn_front=learn_front)
        result = losses(heard, wanted)
        total = result.total
        if heard.quantised is None:
            self._descend(total)
            return result
        if self.step % _REPLAY_EVERY == 0:
            total = total + self._replayed()
        self._descend(total)
        codes = heard.quantised.codes
        rows = heard.latents.detach().flatten(0, 1)
        self.net.codebooks.learn(self.net.mimi.quantizer, rows, codes)
        self._keep(codes.unflatten(0, batch.phones.shape[:2]), wanted, _REPLAY_JOINT)
        return result

    def _replayed(self) -> Tensor:
        """Return the language model's loss on a recent batch's codes: a second lesson at a fourth of the price."""
        if not self.kept:
            return torch.zeros((), device=self.settings.device)
        return self._text_loss([self._drawn()])[0]

    def _drawn(self) -> tuple[Tensor, Wanted]:
        return self.kept[int(torch.randint(len(self.kept), (1,), generator=self._generator))]

    def _keep(self, codes: Tensor, wanted: Wanted, n_batches: int) -> None:
        self.kept.append((codes, wanted))
        while len(self.kept) > n_batches:
            self.kept.popleft()

    def _settled_step(self) -> Losses:
        """Encode a new batch as a server would; learn from it together with some that were kept."""
        batch = self._next_batch()
        with torch.no_grad():
            latents = latents_of(self.net.mimi, self._tensor(batch.pcm))
            codes = self.net.mimi.quantizer(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        self._keep(codes, self._wanted(batch), self.settings.replay_batches)
        kept = [self._drawn() for _ in range(self.settings.replayed)]
        total, result = self._text_loss([self.kept[-1], *kept])
        self._descend(total)
        if self.settings.schedule.settled_only:
            self.trail.add()
        return result

    def _text_loss(self, chosen: list[tuple[Tensor, Wanted]]) -> tuple[Tensor, Losses]:
        codes = torch.cat([codes for codes, _ in chosen])
        more = self.settings.more_wrong_codes
        codes = misheard(
            codes, self.net.module.mimi.codebook_size, self._generator, corrupted=_CORRUPTED_CODES, at_most_more=more
        )
        wanted = torch.cat([w.text for _, w in chosen])
        weight, pause = torch.cat([w.weight for _, w in chosen]), torch.cat([w.pause for _, w in chosen])
        fed = self._fed(torch.cat([w.said for _, w in chosen]), chosen[0][1].pads)
        with mixed(self.settings.device):
            settled = self.phase is Phase.SETTLED
            audio = self.net.audio_vectors(codes) if settled else self.net.bridged(codes)
            text, pauses = self.net.speak(audio, fed)
        text_loss, pause_loss = text_losses(text, pauses, wanted, weight, pause)
        if chosen[0][1].pads.open_starts:
            self._remember_starts(text.detach(), chosen)
        total = 2.0 * text_loss + 0.1 * pause_loss
        best, is_piece, zero = text.argmax(dim=-1), wanted > PAD, text_loss.detach() * 0
        return total, Losses(
            total=total.detach(),
            text=text_loss.detach(),
            phones=zero,
            commit=zero,
            pauses=pause_loss.detach(),
            word_accuracy=(best == wanted)[is_piece].float().mean(),
            false_words=(best > PAD)[~is_piece].float().mean(),
        )

    def _fed(self, said: Tensor, pads: PadWeights) -> Tensor:
        corrupted = _CORRUPTED_OPEN if pads.open_starts else _CORRUPTED_TEXT
        return fed_text(said, self._start, self._generator, corrupted)

    def _remember_starts(self, scores: Tensor, chosen: list[tuple[Tensor, Wanted]]) -> None:
        starts = scores.float().softmax(dim=-1)[..., END_OF_WORD]
        for (_, wanted), own in zip(chosen, torch.split(starts, [len(w.said) for _, w in chosen]), strict=True):
            wanted.said.copy_(with_own_starts(wanted.said, wanted.text, own, self._generator))

    def _descend(self, total: Tensor) -> None:
        self.optimiser.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([p for p in self.net.parameters() if p.grad is not None], 1.0)
        self.optimiser.step()

    @property
    def _start(self) -> int:
        return self.net.module.model.text_in_vocab_size - 1

    def _tensor(self, array: object) -> Tensor:
        return torch.as_tensor(array).to(self.settings.device)

    def _wanted(self, batch: Batch) -> Wanted:
        return Wanted(
            text=self._tensor(batch.text),
            said=self._tensor(batch.said),
            foreign=self._tensor(batch.foreign),
            pause=self._tensor(batch.pause),
            phones=self._tensor(batch.phones),
            pads=batch.pads,
        )

    def _line(self, recent: deque[Losses], done: float) -> str:
        def mean(name: str) -> float:
            return float(torch.stack([getattr(one, name).float() for one in recent]).mean())

        left_s = self.elapsed_s * (1 - done) / max(done, 1e-6)
        assert self.phase is not None
        return (
            f"step {self.step} {self.phase.value} {100 * done:.1f} %  text {mean('text'):.3f}  phones "
            f"{mean('phones'):.3f}  commit {mean('commit'):.3f}  words right {100 * mean('word_accuracy'):.1f} %  "
            f"false steps {1000 * mean('false_words'):.2f} in 1000  {self.elapsed_s / max(1, self.step):.2f} s a step  "
            f"{left_s / 60:.0f} min left"
        )
