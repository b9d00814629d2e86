"""One step of some slots on the device: what a CUDA graph captures, once for each prepared number of rows.

The plan (``packing.py``) says which slot each row is. Everything else stays: the carries and rings, each slot's last
text token, the codes that wait one step. Behind the slots of sessions lies one more, the *scratch slot*: rows that
only fill a prepared size up are this slot. They are inactive, so it stays fresh, and no other slot is written.

The language model hears a frame one step late: step k is fed the text token of step k - 1 and the codes of frame
k - 1, step 0 a start token and padding codes. A slot is fresh when its position is 0, so a reset only moves positions.

Source: docs/model.md, sections 5 and 6.
"""

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from asr_worker.model.contest import Verdict, decide
from asr_worker.model.kv_cache import KvFormat
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import LATENTS_PER_FRAME, MimiEncoder
from asr_worker.model.packing import ACTIVE, ENCODE, N_FLAG_WORDS, RESET, SLOT, TEXT, Selection, plan_words
from asr_worker.model.ring import RingAttention
from asr_worker.model.rows import Rows, all_rows, device_rows, rows_at
from asr_worker.model.sampling import Sampler
from shared.units import FRAME_SAMPLES

CLIP_LEVEL: Final = 65_536.0
"""Louder samples are clipped, and NaN is silence: a state that is not finite would stay so for a whole context.

Gateways clip at 10 and the pool evicts a session whose frame is louder than ``MAX_RMS``. This step trusts neither.
"""


class DeviceStep:
    """The models, the state of all slots and the two buffers: ``plan`` 1-D, ``result`` with a row for each slot."""

    def __init__(
        self,
        *,
        lm: LanguageModel,
        mimi: MimiEncoder,
        sampler: Sampler,
        n_slots: int,
        kv_format: KvFormat | None = None,
    ) -> None:
        config = lm.config
        device = lm.text_emb.device
        self._lm, self._mimi, self._sampler = lm, mimi, sampler
        self._start_text = config.text_in_vocab_size - 1
        self._audio_pad = config.audio_vocab_size - 1
        self.n_slots = n_slots
        self.n_codebooks = config.audio_codebooks
        n_kept = n_slots + 1
        self._ring = lm.new_ring(n_kept, kv_format)
        self._mimi_state = mimi.new_state(n_kept)
        self._last_text = torch.zeros(n_kept, dtype=torch.int64, device=device)
        self._waiting = torch.zeros(n_kept, config.audio_codebooks, dtype=torch.int64, device=device)
        self.plan = torch.zeros(plan_words(n_slots, config.audio_codebooks), device=device)
        self.result = torch.zeros(n_slots, 1 + config.audio_codebooks + lm.n_heads, device=device)

    @property
    def generator(self) -> torch.Generator | None:
        """The sampler's random numbers, which a graph must know of."""
        return self._sampler.generator

    def choose_attention(
        self,
        sizes: Sequence[int],
        make_kernel: Callable[[], RingAttention],
        time_ms: Callable[[Callable[[], object]], float],
    ) -> dict[str, Verdict]:
        """Decide who reads the rings, by trial; say so for each transformer. All slots are fresh afterwards."""
        rings = {"lm": (self._ring, 1), "mimi": (self._mimi_state.ring, LATENTS_PER_FRAME)}
        return {
            name: decide(ring, sizes=sizes, n_new=n_new, make_kernel=make_kernel, time_ms=time_ms)
            for name, (ring, n_new) in rings.items()
        }

    def run(self, n_rows: int) -> None:
        """Step the rows of a plan of ``n_rows``. There is no host round trip and no branch on data.

        If these are as many as there are slots, row i must be slot i: nothing is gathered then.
        """
        pcm, words = self._read(n_rows)
        rows = device_rows(n_rows, None if n_rows == self.n_slots else words[:, SLOT].contiguous())
        self._reset(rows, words[:, RESET] != 0)
        self._step(rows, pcm, words)

    def run_on_host(self, selection: Selection) -> None:
        """Step the rows of a plan without padding on CPU, where the host may look: nothing is computed in vain."""
        pcm, words = self._read(len(selection.slots))
        if selection.has_reset:
            everyone = torch.from_numpy(selection.slots)
            self._reset(device_rows(len(everyone), everyone), words[:, RESET] != 0)
        n_active = selection.n_active
        if n_active:
            self._step(rows_at(selection.slots[:n_active].tolist()), pcm[:n_active], words[:n_active])

    def reset_all(self, *, age_frames: int = 0) -> None:
        """Make every slot fresh, or as old as ``age_frames`` steps, and begin the random numbers anew."""
        rows = all_rows(self.n_slots + 1)
        self._reset(rows, torch.ones_like(self._last_text, dtype=torch.bool))
        self._sampler.restart()
        if age_frames:
            self._ring.age(age_frames)
            self._mimi_state.ring.age(LATENTS_PER_FRAME * age_frames)

    def _read(self, n_rows: int) -> tuple[Tensor, Tensor]:
        """Return a plan's samples ``[n, 1920]`` and other words ``[n, 5 + n_codebooks]`` int64."""
        split = n_rows * FRAME_SAMPLES
        words = self.plan[split : plan_words(n_rows, self.n_codebooks)].view(torch.int32)
        return self.plan[:split].view(n_rows, FRAME_SAMPLES), words.view(n_rows, -1).long()

    def _step(self, rows: Rows, pcm: Tensor, words: Tensor) -> None:
        """Step the slots in ``rows``."""
        active, given = words[:, ACTIVE] != 0, words[:, N_FLAG_WORDS:]
        pcm = pcm.nan_to_num(0.0, 0.0, 0.0).clamp(-CLIP_LEVEL, CLIP_LEVEL)
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
        n_words = 1 + self.n_codebooks
        self.result.view(torch.int32)[: rows.n, :n_words].copy_(torch.cat((text[:, None], codes), dim=1))
        self.result[: rows.n, n_words:].copy_(pauses)

    def _reset(self, rows: Rows, chosen: Tensor) -> None:
        """Make those of ``rows`` fresh that are in the mask ``[n]``."""
        self._ring.reset(chosen, rows)
        self._mimi_state.reset(chosen, rows)
