"""Which tensors of the published files the two models need, under which names.

Source: docs/model.md, sections 3 and 9. A candle file and a PyTorch file differ in the extra heads only; the other
names are those that the Python package maps as well.
"""

import re
from collections.abc import Iterator

from torch import Tensor

from asr_worker.model.checkpoint import Header, Need, Wanted, copy_into
from asr_worker.model.lm import LanguageModel
from asr_worker.model.mimi import MimiEncoder
from asr_worker.model.seanet import CausalConv
from asr_worker.model.transformer import Transformer, published_name
from shared.config import TransformerConfig

LM_PREFIX = "transformer"
MIMI_PREFIX = "encoder_transformer.transformer"


def lm_needs(lm: LanguageModel) -> Iterator[Need]:
    """Yield what the language model needs, the condition excepted."""
    yield _plain("text_emb.weight", lm.text_emb)
    for i, table in enumerate(lm.audio_emb):
        yield _plain(f"emb.{i}.weight", table)
    yield from _transformer_needs(LM_PREFIX, lm.transformer)
    yield _plain("out_norm.alpha", lm.out_norm.alpha)
    yield _plain("text_linear.weight", lm.text_linear)
    for i, head in enumerate(lm.extra_heads):
        yield _plain(f"extra_heads.{i}.weight", head)


def mimi_needs(mimi: MimiEncoder) -> Iterator[Need]:
    """Yield what the encoder needs; a decoder in the same file is ignored."""
    for prefix, conv in mimi.encoder.published_convs():
        yield _conv_weight(prefix, conv)
        assert conv.bias is not None
        yield _plain(f"{prefix}.bias", conv.bias)
    yield from _transformer_needs(MIMI_PREFIX, mimi.transformer)
    yield _conv_weight("downsample.conv.conv.conv", mimi.downsample)
    config, quantizer = mimi.config, mimi.quantizer
    projection = (config.codebook_dim, config.dimension, 1)
    for half, parameter in (("first", quantizer.first_proj), ("rest", quantizer.rest_proj)):
        wanted = Wanted(name=f"quantizer.rvq_{half}.input_proj.weight", shape=projection)
        yield Need(wanted=(wanted,), put=copy_into(parameter))
    for level in range(len(quantizer.entries)):
        half, index = ("first", 0) if level == 0 else ("rest", level - 1)
        prefix = f"quantizer.rvq_{half}.vq.layers.{index}._codebook"
        yield Need(
            wanted=(
                Wanted(
                    name=f"{prefix}.embedding_sum",
                    shape=(config.codebook_size, config.codebook_dim),
                    aliases=(f"{prefix}.embed_avg", f"{prefix}.embed_sum"),
                ),
                Wanted(
                    name=f"{prefix}.cluster_usage",
                    shape=(config.codebook_size,),
                    aliases=(f"{prefix}.cluster_size",),
                ),
            ),
            put=lambda sums, usage, level=level: quantizer.put_codebook(level, sums, usage),
        )


def layer_problems(header: Header, prefix: str, n_layers: int) -> list[str]:
    """Return a problem if the file's transformer has more layers than the ``n_layers`` configured.

    Other tensors that nobody needs are left alone, but a model that is cut short says nonsense without any complaint.
    """
    numbers = [
        int(found[1]) for name in header.tensors if (found := re.match(rf"{re.escape(prefix)}\.layers\.(\d+)\.", name))
    ]
    found_layers = max(numbers, default=-1) + 1
    if found_layers <= n_layers:
        return []
    return [f"{header.role} {header.path}: has {found_layers} layers of '{prefix}', num_layers is {n_layers}"]


def hidden_width(config: TransformerConfig, header: Header) -> int:
    """Return the width of the feed-forward: the file's, if some rule allows it, else the configured one.

    moshi-server and the Python package derive different widths from the same number when it is 4 d.
    """
    found = header.tensors.get(f"{LM_PREFIX}.layers.0.gating.linear_out.weight")
    d_model, feedforward = config.d_model, config.dim_feedforward
    allowed = {2 * feedforward // 3}
    if feedforward == 4 * d_model:
        allowed |= {11 * d_model // 4, 21 * d_model // 8}
    if found and len(found.shape) == 2 and found.shape[1] in allowed:  # noqa: PLR2004 - a matrix
        return found.shape[1]
    return config.hidden


def _plain(name: str, parameter: Tensor) -> Need:
    return Need(wanted=(Wanted(name=name, shape=tuple(parameter.shape)),), put=copy_into(parameter))


def _conv_weight(prefix: str, conv: CausalConv) -> Need:
    shape = conv.published_shape
    gain = Wanted(
        name=f"{prefix}.weight_g", shape=(shape[0], 1, 1), aliases=(f"{prefix}.parametrizations.weight.original0",)
    )
    direction = Wanted(name=f"{prefix}.weight_v", shape=shape, aliases=(f"{prefix}.parametrizations.weight.original1",))
    return Need(
        wanted=(Wanted(name=f"{prefix}.weight", shape=shape),),
        put=conv.put_weight,
        instead=Need(wanted=(gain, direction), put=conv.put_normed_weight),
    )


def _transformer_needs(prefix: str, transformer: Transformer) -> Iterator[Need]:
    for own_name, parameter in transformer.named_parameters():
        name = f"{prefix}.{published_name(own_name)}"
        wanted = Wanted(name=name, shape=tuple(parameter.shape), aliases=_aliases(name))
        yield Need(wanted=(wanted,), put=copy_into(parameter))


def _aliases(name: str) -> tuple[str, ...]:
    stem = name.rpartition("self_attn.")[0] + "self_attn."
    if name.endswith("self_attn.in_proj_weight"):
        return (f"{stem}in_proj.weight", f"{stem}in_projs.0.weight")
    if name.endswith("self_attn.out_proj.weight"):
        return (f"{stem}out_projs.0.weight",)
    return ()
