"""The Mimi audio encoder: one frame of 1920 samples to one row of codes, for every slot of a batch.

    samples [B, 1920] ──► SEANet ──► 2 latents ──► transformer ──► downsample ──► quantiser ──► codes [B, n]
                          carry                    ring of 250      carry

All of it is float32: one flipped code changes every later acoustic code of its frame. A session's left context is
silence everywhere, the downsample's included (moshi-server's rule; the Python package repeats the first latent there,
which changes most codes of a session's first frame and no later one).

Source: docs/model.md, section 9.
"""

from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from asr_worker.model.attention import Sequence
from asr_worker.model.carry import Carry, Past, Silence
from asr_worker.model.products import Product
from asr_worker.model.quantizer import SplitQuantizer
from asr_worker.model.ring import Ring
from asr_worker.model.rows import Rows
from asr_worker.model.seanet import CausalConv, SeanetEncoder
from asr_worker.model.transformer import MimiLayer, Transformer
from shared.config import MimiConfig
from shared.units import FRAME_SAMPLES

DOWNSAMPLE_STRIDE: Final = 2
LATENTS_PER_FRAME: Final = 2


class MimiState:
    """What Mimi remembers of each slot: the carry of its convolutions and its transformer's ring."""

    def __init__(self, *, carry: Carry, ring: Ring) -> None:
        self.carry = carry
        self.ring = ring

    def reset(self, chosen: Tensor, rows: Rows | None = None) -> None:
        """Make those of ``rows`` fresh that are in the mask ``[n]``."""
        self.carry.reset(chosen, rows)
        self.ring.reset(chosen, rows)


class MimiEncoder(nn.Module):
    """Encoder half of Mimi with the first ``n_codebooks`` codebooks."""

    def __init__(self, config: MimiConfig, n_codebooks: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = SeanetEncoder(config)
        self.transformer = Transformer(
            [MimiLayer(config.dimension, config.dim_feedforward) for _ in range(config.num_layers)]
        )
        self.downsample = CausalConv(
            config.dimension, config.dimension, 2 * DOWNSAMPLE_STRIDE, stride=DOWNSAMPLE_STRIDE, bias=False
        )
        self.quantizer = SplitQuantizer(config, n_codebooks)
        self._n_carry_floats = 0
        for conv in (*(conv for _, conv in self.encoder.published_convs()), self.downsample):
            conv.carry_offset = self._n_carry_floats
            self._n_carry_floats += conv.n_carried * conv.n_in

    def new_state(self, n_rows: int) -> MimiState:
        """Return the state of ``n_rows`` fresh slots, on the parameters' device."""
        device = self.downsample.weight.device
        config = self.config
        ring = Ring(
            n_layers=config.num_layers,
            n_rows=n_rows,
            context=config.context,
            n_heads=config.num_heads,
            head_dim=config.dimension // config.num_heads,
            max_period=config.max_period,
            device=device,
            dtype=torch.float32,
        )
        return MimiState(carry=Carry(n_rows=n_rows, n_floats=self._n_carry_floats, device=device), ring=ring)

    def pack(self, n_rows: int) -> None:
        """Pack the weights for CPU, for steps of up to ``n_rows`` slots; from here on it only steps."""
        n_latents = self.encoder.pack(n_rows, FRAME_SAMPLES)
        self.transformer.pack(partial(Product, n_rows=n_rows * n_latents))
        self.downsample.pack(n_rows, n_latents)
        self.quantizer.pack(n_rows)

    def step(self, pcm: Tensor, state: MimiState, active: Tensor, rows: Rows | None = None) -> Tensor:
        """Encode one frame for the slots in ``rows``, n in number, and move on those in ``active``.

        Args:
            pcm: ``[n, 1920]`` float32, finite.
            state: of all slots, changed in place.
            active: ``[n]`` bool; the codes of other rows mean nothing.
            rows: the slots that take part; None: all.

        Returns:
            ``[n, n_codebooks]`` int64.
        """
        carry = state.carry.begin(active, rows)
        latents = self.encoder(pcm[:, :, None], carry)
        latents = self.transformer(latents, state.ring.begin(LATENTS_PER_FRAME, rows, active))
        codes = self._codes(latents, carry)[:, 0]
        carry.commit()
        state.ring.advance(active, LATENTS_PER_FRAME, rows)
        return codes

    def forward(self, pcm: Tensor) -> Tensor:
        """Encode whole streams ``[B, F * 1920]`` from their start; return codes ``[B, F, n_codebooks]``.

        Agrees with ``step`` frame by frame.
        """
        silence = Silence()
        latents = self.encoder(pcm[:, :, None], silence)
        memory = Sequence(
            n_positions=latents.shape[1],
            context=self.config.context,
            per_step=LATENTS_PER_FRAME,
            head_dim=self.config.dimension // self.config.num_heads,
            max_period=self.config.max_period,
            like=latents,
        )
        return self._codes(self.transformer(latents, memory), silence)

    def _codes(self, latents: Tensor, past: Past) -> Tensor:
        frames = self.downsample(latents, past)
        codes: Tensor = self.quantizer(frames.flatten(0, 1))
        return codes.view(*frames.shape[:2], -1)
