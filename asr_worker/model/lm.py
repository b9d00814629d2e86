"""The language model: one text token and n codes in, scores of the next text token and of pauses out.

    E_text[t] + E_0[a_0] + ... + E_n-1[a_n-1] + condition ──► layers ──► RMSNorm ──► text scores [V]
                                                                              └────► pause heads  [heads, 6]

Nothing here knows of delays or of what is fed back: that is ``device_step.py``.

Source: docs/model.md, section 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.attention import Memory, Sequence
from asr_worker.model.kv_cache import KvFormat
from asr_worker.model.norms import RmsNorm
from asr_worker.model.products import MakeProduct, Product, StepProduct, can_pack, linear
from asr_worker.model.ring import Ring
from asr_worker.model.rows import Rows
from asr_worker.model.transformer import LmLayer, Transformer
from shared.config import LmConfig


class LanguageModel(nn.Module):
    """The decoder-only model of ``[modules.NAME.model]``.

    Args:
        config: its sizes.
        hidden: width of the gated feed-forward; ``config.transformer.hidden`` unless a file says otherwise.
        dtype: of weights, activations and rings.
    """

    def __init__(self, config: LmConfig, *, hidden: int, dtype: torch.dtype) -> None:
        super().__init__()
        dim = config.transformer.d_model
        self.config = config
        self.text_emb = nn.Parameter(torch.empty(config.text_in_vocab_size, dim, dtype=dtype))
        self.audio_emb = nn.Parameter(torch.empty(config.audio_codebooks, config.audio_vocab_size, dim, dtype=dtype))
        self.transformer = Transformer([LmLayer(dim, hidden, dtype) for _ in range(config.transformer.num_layers)])
        self.out_norm = RmsNorm(dim, dtype)
        self.text_linear = nn.Parameter(torch.empty(config.text_out_vocab_size, dim, dtype=dtype))
        heads = config.extra_heads
        self.n_heads = heads.num_heads if heads else 0
        self.extra_heads = nn.Parameter(torch.empty(self.n_heads, heads.dim if heads else 1, dim, dtype=dtype))
        first_ids = torch.arange(config.audio_codebooks) * config.audio_vocab_size
        self.register_buffer("_first_ids", first_ids, persistent=False)
        self._first_ids: Tensor
        self.register_buffer("condition", None, persistent=False)
        self.condition: Tensor | None
        self._score: StepProduct | None = None
        """The text scores' weight, once it is packed."""

    def new_ring(self, n_rows: int, form: KvFormat | None = None) -> Ring:
        """Return the ring of ``n_rows`` fresh slots, on the parameters' device; ``form``: how it keeps numbers."""
        sizes = self.config.transformer
        return Ring(
            n_layers=sizes.num_layers,
            n_rows=n_rows,
            context=sizes.context,
            n_heads=sizes.num_heads,
            head_dim=sizes.d_model // sizes.num_heads,
            max_period=sizes.max_period,
            device=self.text_emb.device,
            dtype=self.text_emb.dtype,
            form=form,
        )

    def pack(self, product: MakeProduct = Product) -> None:
        """Pack the weights for CPU, ``product`` says how; from here on it only steps."""
        self.transformer.pack(product)
        if can_pack(self.text_linear):
            self._score = product(self.text_linear)
            del self.text_linear

    def step(
        self, text: Tensor, audio: Tensor, ring: Ring, active: Tensor, rows: Rows | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run one position of the slots in ``rows``, n in number, and move on those in ``active``.

        Args:
            text: ``[n]`` int64, below ``text_in_vocab_size``.
            audio: ``[n, n_codebooks]`` int64, below ``audio_vocab_size``.
            ring: of all slots, changed in place.
            active: ``[n]`` bool; what comes out of other rows means nothing.
            rows: the slots that take part; None: all.

        Returns:
            Scores ``[n, text_out_vocab_size]`` in the model's dtype; pauses ``[n, n_heads]`` float32.
        """
        scores, heads = self._run(text[:, None], audio[:, None], ring.begin(1, rows, active))
        ring.advance(active, 1, rows)
        return scores[:, 0], functional.softmax(heads[:, 0].float(), dim=-1)[..., 0]

    def forward(self, text: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Run whole sequences from their start; agrees with ``step`` position by position.

        Args:
            text: ``[B, T]`` int64.
            audio: ``[B, T, n_codebooks]`` int64.

        Returns:
            Scores ``[B, T, text_out_vocab_size]`` and heads ``[B, T, n_heads, head dim]``, before any softmax.
        """
        sizes = self.config.transformer
        memory = Sequence(
            n_positions=text.shape[1],
            context=sizes.context,
            per_step=1,
            head_dim=sizes.d_model // sizes.num_heads,
            max_period=sizes.max_period,
            like=self.text_emb,
        )
        return self._run(text, audio, memory)

    def _run(self, text: Tensor, audio: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        normed = self.out_norm(self.transformer(self._embed(text, audio), memory))
        heads = linear(normed, self.extra_heads.flatten(0, 1)).view(*text.shape, *self.extra_heads.shape[:2])
        if self._score is None:
            return linear(normed, self.text_linear), heads
        return self._score(normed.flatten(0, -2)).view(*text.shape, -1), heads

    def _embed(self, text: Tensor, audio: Tensor) -> Tensor:
        """Sum the embeddings of one position; half precision text first, rounding after each as moshi-server does."""
        x = functional.embedding(text, self.text_emb)
        heard = functional.embedding(audio + self._first_ids, self.audio_emb.flatten(0, 1))
        if x.dtype == torch.float32:
            x = x + heard.sum(dim=-2)
        else:
            for vectors in heard.unbind(-2):
                x = x + vectors
        return x if self.condition is None else x + self.condition
