"""Mimi's front end at training speed: the worker's own modules, run with the library's convolution.

The worker writes a convolution as one copy and one matrix product, which is best for single frames. Over seconds of
audio with gradients the copies cost three times as much as the product, so training feeds the same weights to
``conv1d``. A test holds both to the same numbers.
"""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from asr_worker.model.attention import Sequence
from asr_worker.model.mimi import LATENTS_PER_FRAME, MimiEncoder
from asr_worker.model.seanet import CausalConv, Stage

_LONG_STAGES: Final = 2
"""The stages whose rows are megabytes each."""


def latents_of(mimi: MimiEncoder, pcm: Tensor, *, learn_front: bool = True) -> Tensor:
    """Return the latents before the quantiser, ``[B, F, dimension]``, of samples ``[B, F * 1920]``.

    ``learn_front=False`` keeps gradients from the first stage: it costs as much as all others together, since it
    works on every sample, and learns the least.
    """
    # On CPU the long stages go row by row: what a layer leaves for the next is still in the cache, and no layer asks
    # the system for fresh pages.
    rows = torch.split(pcm, 1) if pcm.device.type == "cpu" else (pcm,)
    x = torch.cat([_long_stages(mimi, row, learn_front=learn_front) for row in rows])
    for stage in mimi.encoder.stages[_LONG_STAGES:]:
        x = _stage(stage, x)
    x = _conv(mimi.encoder.last, elu(x))[:, :, 0].transpose(1, 2)
    config = mimi.config
    memory = Sequence(
        n_positions=x.shape[1],
        context=config.context,
        per_step=LATENTS_PER_FRAME,
        head_dim=config.dimension // config.num_heads,
        max_period=config.max_period,
        like=x,
    )
    x = mimi.transformer(x, memory)
    return _conv(mimi.downsample, x.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)


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


def _long_stages(mimi: MimiEncoder, pcm: Tensor, *, learn_front: bool) -> Tensor:
    with torch.set_grad_enabled(torch.is_grad_enabled() and learn_front):
        x = _stage(mimi.encoder.stages[0], _conv(mimi.encoder.first, pcm[:, None, None]))
    for stage in mimi.encoder.stages[1:_LONG_STAGES]:
        x = _stage(stage, x)
    return x


def _stage(stage: nn.Module, x: Tensor) -> Tensor:
    assert isinstance(stage, Stage)
    inner = _conv(stage.squeeze, elu(x))
    x = x + _conv(stage.expand, elu(inner))
    return _conv(stage.down, elu(x))


def elu(x: Tensor) -> Tensor:
    """Return the exponential linear unit of ``x``.

    The library computes it in bfloat16 with ``expm1`` number by number, a fifth of a step; four passes with ``exp``
    take two thirds as long. Close to 0, where their difference of two rounded numbers is none, ``x`` itself is right.
    """
    if x.dtype is torch.bfloat16 and x.device.type == "cpu":
        out: Tensor = _Elu.apply(x)  # type: ignore[no-untyped-call]
        return out
    return functional.elu(x)


class _Elu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.maximum(x, x.clamp(max=0).exp_().sub_(1))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        out: Tensor = torch.ops.aten.elu_backward(grad, 1.0, 1.0, 1.0, True, y)
        return out


def _conv(conv: CausalConv, x: Tensor) -> Tensor:
    """Convolve ``[B, C, 1, T]`` after silence with the weights of a worker's convolution.

    Those lie as ``[out, kernel, in]``, which the library calls "channels last": given a height of one it takes them,
    and what comes of them, as they lie.
    """
    n_out, n_in, kernel = conv.published_shape
    weight = conv.weight.view(n_out, 1, kernel, n_in).permute(0, 3, 1, 2)
    stride = kernel - conv.n_carried
    return functional.conv2d(functional.pad(x, (conv.n_carried, 0)), weight, conv.bias, stride=(1, stride))
