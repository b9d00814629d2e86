"""One step of the whole batch on the device: what a CUDA graph captures.

Plan and result are each one tensor of 32-bit words, so that each crosses the bus once:

    plan    [B, 1920 + 4 + n]   samples (float32) | active | reset | encode | forced text | given codes     (int32)
    result  [B, 1 + n + heads]  text | codes (int32) | pauses (float32)

Everything else stays: the carries and rings, each slot's last text token, the codes that wait one step. The
language model hears a frame one step late: step k is fed the text token of step k - 1 and the codes of frame k - 1,
step 0 a start token and padding codes. A slot is fresh when its position is 0, so a reset only moves positions.

Source: model.md sections 5 and 6.
"""

from typing import Final

import torch
from torch import Tensor

from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import LATENTS_PER_FRAME, MimiEncoder
from asr_worker.model.rows import Rows, all_rows, rows_of
from asr_worker.model.sampling import Sampler
from shared.units import FRAME_SAMPLES

N_FLAG_WORDS: Final = 4
ACTIVE, RESET, ENCODE, TEXT = range(N_FLAG_WORDS)

MAX_SAMPLE: Final = 65_536.0
"""Louder samples are clipped: twice what a client can send who forgets to scale 16-bit audio. Keeps states finite."""


def plan_width(n_codebooks: int) -> int:
    """Return the number of words in a row of the plan."""
    return FRAME_SAMPLES + N_FLAG_WORDS + n_codebooks


class DeviceStep:
    """The models, the state of all slots and the two buffers."""

    def __init__(self, *, lm: LanguageModel, mimi: MimiEncoder, sampler: Sampler, n_slots: int) -> None:
        config = lm.config
        device = lm.text_emb.device
        self._lm, self._mimi, self._sampler = lm, mimi, sampler
        self._start_text = config.text_in_vocab_size - 1
        self._audio_pad = config.audio_vocab_size - 1
        self._everyone = all_rows(n_slots)
        self._ring = lm.new_ring(n_slots)
        self._mimi_state = mimi.new_state(n_slots)
        self._last_text = torch.zeros(n_slots, dtype=torch.int64, device=device)
        self._waiting = torch.zeros(n_slots, config.audio_codebooks, dtype=torch.int64, device=device)
        self.plan = torch.zeros(n_slots, plan_width(config.audio_codebooks), device=device)
        self.result = torch.zeros(n_slots, 1 + config.audio_codebooks + lm.n_heads, device=device)

    @property
    def generator(self) -> torch.Generator | None:
        """The sampler's random numbers, which a graph must know of."""
        return self._sampler.generator

    def run(self) -> None:
        """Read the plan, step, write the result. On CUDA there is no host round trip and no branch on data."""
        words = self.plan.view(torch.int32)[:, FRAME_SAMPLES:].long()
        active, reset = words[:, ACTIVE] != 0, words[:, RESET] != 0
        if active.is_cuda:
            self.reset(reset)
            self._step(self._everyone, words)
            return
        # Here the host may look, and the cost follows the slots that take part.
        if reset.any():
            self.reset(reset)
        if active.any():
            rows = rows_of(active)
            self._step(rows, rows.take(words))

    def _step(self, rows: Rows, words: Tensor) -> None:
        """Step the slots in ``rows``, n in number, whose words of the plan are ``[n, 4 + n_codebooks]``."""
        active, given = words[:, ACTIVE] != 0, words[:, N_FLAG_WORDS:]
        pcm = rows.take(self.plan)[:, :FRAME_SAMPLES].nan_to_num(0.0, 0.0, 0.0).clamp(-MAX_SAMPLE, MAX_SAMPLE)
        encoded = self._mimi.step(pcm, self._mimi_state, words[:, ENCODE] != 0, rows)
        codes = torch.where(given[:, :1] >= 0, given, encoded)
        fresh = rows.take(self._ring.position) == 0
        last_text, waiting = rows.take(self._last_text), rows.take(self._waiting)
        scores, pauses = self._lm.step(
            last_text.masked_fill(fresh, self._start_text),
            waiting.masked_fill(fresh[:, None], self._audio_pad),
            self._ring,
            active,
            rows,
        )
        text = torch.where(words[:, TEXT] >= 0, words[:, TEXT], self._sampler.sample(scores))
        rows.put(self._last_text, torch.where(active, text, last_text))
        rows.put(self._waiting, torch.where(active[:, None], codes, waiting))
        n_words = 1 + codes.shape[1]
        rows.put(self.result.view(torch.int32)[:, :n_words], torch.cat((text[:, None], codes), dim=1).int())
        rows.put(self.result[:, n_words:], pauses)

    def reset(self, rows: Tensor) -> None:
        """Make the slots in the mask ``[B]`` fresh."""
        self._ring.reset(rows)
        self._mimi_state.reset(rows)

    def reset_all(self, *, age_frames: int = 0) -> None:
        """Make every slot fresh, or as old as ``age_frames`` steps, and begin the random numbers anew."""
        self.reset(torch.ones_like(self._last_text, dtype=torch.bool))
        self._sampler.restart()
        if age_frames:
            self._ring.age(age_frames)
            self._mimi_state.ring.age(LATENTS_PER_FRAME * age_frames)
