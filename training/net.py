"""The worker's two models as one network to train, and the parts that only training needs.

    samples ─► Mimi's layers ─► latent ─► quantiser ─► bridge ─► LM ─► text, pauses
                                              ├─► phone head of everything       (auxiliary)
                                              └─► phone head of codebook 0 alone (auxiliary)

The *bridge* is a linear map from the quantised latent to the language model's width. While the encoder learns it takes
the place of the audio tables: the text loss reaches the encoder through it, and it follows codebooks that still move.
Each table row is then the bridge of an entry, exactly, and learns on its own once the encoder stands still. (Tables
that learn beside a moving encoder, with the bridge for its gradient only, were tried: four times slower.)
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.attention import Attention, Sequence
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from shared.config import ModuleConfig
from training.encoder import init_encoder, latents_of
from training.phones import PHONES
from training.quantise import MovingCodebooks, Quantised, quantise
from training.targets import PHONE_SUBFRAMES

_DROPOUT: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class Heard:
    """What the network makes of a batch.

    ``text`` ``[B, F + 1, V]`` and ``pauses`` ``[B, F + 1, heads, 6]`` scores; ``phones`` and ``phones_first``
    ``[B, F, 6, phones]`` scores; ``quantised`` is None while nothing is quantised.
    """

    text: Tensor
    pauses: Tensor
    phones: Tensor
    phones_first: Tensor
    latents: Tensor
    quantised: Quantised | None


class Net(nn.Module):
    """Encoder, language model and the training-only parts, all float32, filled with random numbers."""

    def __init__(self, module: ModuleConfig, seed: int) -> None:
        super().__init__()
        self.module = module
        self.mimi = MimiEncoder(module.mimi, module.model.audio_codebooks)
        self.lm = LanguageModel(module.model, hidden=module.model.transformer.hidden, dtype=torch.float32)
        generator = torch.Generator().manual_seed(seed)
        init_encoder(self.mimi, generator)
        init_lm(self.lm, generator)
        self.codebooks = MovingCodebooks(self.mimi.quantizer)
        self.codebooks.follow(self.mimi.quantizer, per_batch=module.mimi.codebook_size)
        self.codebooks.write(self.mimi.quantizer)
        width, dim = module.mimi.codebook_dim, module.model.transformer.d_model
        self.bridge = nn.Linear(2 * width, dim)
        self.phone_head = nn.Sequential(
            nn.Linear(2 * width, 256), nn.SiLU(), nn.Linear(256, PHONE_SUBFRAMES * len(PHONES))
        )
        self.first_head = nn.Linear(width, PHONE_SUBFRAMES * len(PHONES))
        self.dropout = nn.Dropout(_DROPOUT)
        for part in self.lm.modules():
            if isinstance(part, Attention):
                part.register_forward_hook(lambda _part, _inputs, out: self.dropout(out))

    def forward(self, pcm: Tensor, text: Tensor, *, discrete: bool, learn_front: bool = True) -> Heard:
        """Hear samples ``[B, F * 1920]`` while the text so far is ``[B, F + 1]`` (what each step is fed)."""
        latents = latents_of(self.mimi, pcm, learn_front=learn_front).float()
        # One wrongly rounded code changes all that follow it in its frame: a server computes this in float32 too.
        with torch.autocast(pcm.device.type, enabled=False):
            first, rest, quantised = self._quantise(latents.flatten(0, 1), discrete=discrete)
            both = torch.cat((first, rest), dim=-1)
        shape = latents.shape[:2]
        text_scores, pauses = self.speak(self.bridge(both).view(*shape, -1), text)
        phones, phones_first = self.phone_scores(first.view(*shape, -1), rest.view(*shape, -1))
        return Heard(
            text=text_scores,
            pauses=pauses,
            phones=phones,
            phones_first=phones_first,
            latents=latents,
            quantised=quantised,
        )

    def phone_scores(self, first: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Return both heads' scores ``[..., 6, phones]`` of quantised latents: of all codebooks, of the first alone."""
        per_phone = (*first.shape[:-1], PHONE_SUBFRAMES, len(PHONES))
        return self.phone_head(torch.cat((first, rest), dim=-1)).view(per_phone), self.first_head(first).view(per_phone)

    def _quantise(self, rows: Tensor, *, discrete: bool) -> tuple[Tensor, Tensor, Quantised | None]:
        quantizer = self.mimi.quantizer
        if discrete:
            quantised = quantise(quantizer, rows)
            return quantised.first, quantised.rest, quantised
        return functional.linear(rows, quantizer.first_proj), functional.linear(rows, quantizer.rest_proj), None

    def audio_vectors(self, codes: Tensor) -> Tensor:
        """Return the sum of the audio tables' rows, ``[B, F, d]``, for codes ``[B, F, n]``."""
        tables = self.lm.audio_emb
        offsets = torch.arange(tables.shape[0], device=codes.device) * tables.shape[1]
        return functional.embedding(codes + offsets, tables.flatten(0, 1)).sum(dim=-2)

    def bridged(self, codes: Tensor) -> Tensor:
        """Return what the bridge makes of codes ``[B, F, n]``, ``[B, F, d]``."""
        entries = self.mimi.quantizer.entries
        first = functional.embedding(codes[..., 0], entries[0])
        offsets = torch.arange(1, codes.shape[-1], device=codes.device) * entries.shape[1]
        rest = functional.embedding(codes[..., 1:] + offsets, entries.flatten(0, 1)).sum(dim=-2)
        vectors: Tensor = self.bridge(torch.cat((first, rest), dim=-1))
        return vectors

    def speak(self, audio: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Run the language model on audio vectors ``[B, F, d]``, delayed by one step as a server delays them."""
        lm = self.lm
        pad = lm.audio_emb[:, -1].sum(dim=0).expand(len(audio), 1, -1)
        x = self.dropout(functional.embedding(text, lm.text_emb) + torch.cat((pad, audio), dim=1))
        sizes = lm.config.transformer
        memory = Sequence(
            n_positions=x.shape[1],
            context=sizes.context,
            per_step=1,
            head_dim=sizes.d_model // sizes.num_heads,
            max_period=sizes.max_period,
            like=x,
        )
        normed = lm.out_norm(lm.transformer(x, memory))
        heads = functional.linear(normed, lm.extra_heads.flatten(0, 1))
        return functional.linear(normed, lm.text_linear), heads.view(*text.shape, *lm.extra_heads.shape[:2])

    @torch.no_grad()
    def round_encoder(self) -> None:
        """Leave in the encoder what its file holds: all but the codebooks in bfloat16.

        The language model then learns on the very codes that a server will see.
        """
        for name, parameter in self.mimi.named_parameters():
            if name != "quantizer.entries":
                parameter.copy_(parameter.bfloat16())

    @torch.no_grad()
    def tables_from_bridge(self) -> None:
        """Fill the audio tables so that they say what the bridge would of each entry; the pad codes' rows stay."""
        width = self.mimi.quantizer.entries.shape[-1]
        first, rest = self.bridge.weight[:, :width], self.bridge.weight[:, width:]
        entries, n_levels = self.mimi.quantizer.entries, len(self.mimi.quantizer.entries)
        for level in range(n_levels):
            rows = functional.linear(entries[level], first if level == 0 else rest)
            self.lm.audio_emb[level, :-1] = rows + self.bridge.bias / n_levels

    @torch.no_grad()
    def bridge_from_tables(self) -> float:
        """Fit the bridge to the tables by least squares; return the share of variance that it misses."""
        entries, tables = self.mimi.quantizer.entries, self.lm.audio_emb[:, :-1]
        missed = total = 0.0
        parts, bias = [], torch.zeros_like(self.bridge.bias)
        for levels in (slice(0, 1), slice(1, None)):
            x, y = entries[levels].flatten(0, 1), tables[levels]
            mean = y.mean(dim=1, keepdim=True)
            bias = bias + mean.sum(dim=(0, 1))
            centred = (entries[levels] - entries[levels].mean(dim=1, keepdim=True)).flatten(0, 1)
            wanted = (y - mean).flatten(0, 1)
            ridge = 1e-4 * torch.eye(x.shape[1]) * centred.square().mean() * len(centred)
            solution = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ wanted)
            parts.append(solution.T)
            bias = bias - (entries[levels].mean(dim=1) @ solution).sum(dim=0)
            missed += float((wanted - centred @ solution).square().sum())
            total += float(wanted.square().sum())
        self.bridge.weight.copy_(torch.cat(parts, dim=1))
        self.bridge.bias.copy_(bias)
        return missed / total


def init_lm(lm: LanguageModel, generator: torch.Generator) -> None:
    """Fill a fresh language model: norms 1, matrices by their width, tables small."""
    with torch.no_grad():
        for name, parameter in lm.named_parameters():
            if name.endswith("alpha"):
                parameter.fill_(1.0)
            elif name in ("text_emb", "audio_emb"):
                parameter.normal_(0, 0.5 if name == "text_emb" else 0.2, generator=generator)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
            if name.endswith(("out_proj_weight", "linear_out")):
                parameter.mul_((2 * lm.config.transformer.num_layers) ** -0.5)
