"""Mimi's front end at training speed: the worker's own modules, run with the library's convolution.

The worker writes a convolution as one copy and one matrix product, which is best for single frames. Over seconds of
audio with gradients the copies cost three times as much as the product, so training feeds the same weights to
``conv1d``. A test holds both to the same numbers.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.attention import Sequence
from asr_worker.model.mimi import LATENTS_PER_FRAME, MimiEncoder
from asr_worker.model.seanet import CausalConv, Stage


def latents_of(mimi: MimiEncoder, pcm: Tensor, *, learn_front: bool = True) -> Tensor:
    """Return the latents before the quantiser, ``[B, F, dimension]``, of samples ``[B, F * 1920]``.

    ``learn_front=False`` keeps gradients from the first stage: it costs as much as all others together, since it
    works on every sample, and learns the least.
    """
    with torch.set_grad_enabled(torch.is_grad_enabled() and learn_front):
        x = _stage(mimi.encoder.stages[0], _conv(mimi.encoder.first, pcm[:, None]))
    for stage in mimi.encoder.stages[1:]:
        x = _stage(stage, x)
    x = _conv(mimi.encoder.last, functional.elu(x)).transpose(1, 2)
    config = mimi.config
    memory = Sequence(
        n_positions=x.shape[1],
        context=config.context,
        per_step=LATENTS_PER_FRAME,
        head_dim=config.dimension // config.num_heads,
        max_period=config.max_period,
        like=x,
    )
    return _conv(mimi.downsample, mimi.transformer(x, memory).transpose(1, 2)).transpose(1, 2)


def init_encoder(mimi: MimiEncoder, generator: torch.Generator) -> None:
    """Fill a fresh encoder.

    Kaiming's rule times 1.2, and the first convolution six times more: with the usual start the latents of speech at
    0.05 root mean square are so small that the biases drown them.
    """
    with torch.no_grad():
        convs = [conv for _, conv in mimi.encoder.published_convs()]
        for index, conv in enumerate((*convs, mimi.downsample)):
            scale = 1.2 * (6.0 if index == 0 else 1.0) / conv.weight.shape[1] ** 0.5
            conv.weight.normal_(0, scale, generator=generator)
            if conv.bias is not None:
                conv.bias.zero_()
        for name, parameter in mimi.transformer.named_parameters():
            if "layer_scale" in name:
                parameter.fill_(0.1)
            elif parameter.dim() > 1:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
            else:
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        for projection in (mimi.quantizer.first_proj, mimi.quantizer.rest_proj):
            projection.normal_(0, projection.shape[1] ** -0.5, generator=generator)
        mimi.quantizer.entries.normal_(generator=generator)


def _stage(stage: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(stage, Stage)
    inner = _conv(stage.squeeze, functional.elu(x))
    x = x + _conv(stage.expand, functional.elu_(inner))
    return _conv(stage.down, functional.elu_(x))


def _conv(conv: CausalConv, x: Tensor) -> Tensor:
    """Convolve ``[B, C, T]`` after silence with the weights of a worker's convolution."""
    n_out, n_in, kernel = conv.published_shape
    weight = conv.weight.view(n_out, kernel, n_in).transpose(1, 2)
    stride = kernel - conv.n_carried
    return functional.conv1d(functional.pad(x, (conv.n_carried, 0)), weight, conv.bias, stride=stride)
