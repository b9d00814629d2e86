"""What moves the weights: Muon for matrices, AdamW for the rest.

Muon steps along the directions of a matrix's averaged gradient, all of them equally far, where Adam scales each number
on its own. From nothing the model needs about three steps for the same words instead of five (README.md, *Tried*).

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; the step's size, that of AdamW's,
by Liu et al. 2025, "Muon is scalable for LLM training". PyTorch's own computes in bfloat16 always, which is several
times slower than float32 on CPUs without instructions for it.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn

from training.precision import fast_dtype

_ENCODER_RATE, _ENCODER_MATRIX_RATE = 0.4, 1.6
"""The encoder learns slower than the language model, which has to follow its codes."""
_MATRIX_RATE: Final = 4.0
_WEIGHT_DECAY: Final = 0.02
_MOMENTUM: Final = 0.95
_RMS: Final = 0.2
"""Root mean square of AdamW's steps, in units of the rate."""
_ITERATIONS: Final = 5
_COEFFICIENTS: Final = (3.4445, -4.7750, 2.0315)
"""Of the polynomial that takes every singular value from (0, 1] to about 1 in five iterations."""
_NARROW: Final = 8
"""A matrix with fewer rows or columns, the convolution over samples, has too few directions to even out."""
_TABLES_AND_HEADS: Final = ("text_emb", "text_linear", "bridge", "phone_head", "first_head")
"""What reads tokens and codes or says scores: a row belongs to one thing, and has a gradient when that occurs."""


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices ``[m, n]``."""

    def __init__(self, groups: list[dict[str, Any]], *, lr: float) -> None:
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 the library gives it
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
                direction = orthogonal(weight.grad.lerp(momentum, _MOMENTUM))
                weight.mul_(1 - group["lr"] * _WEIGHT_DECAY)
                weight.add_(direction, alpha=-group["lr"] * _RMS * max(weight.shape) ** 0.5)


def orthogonal(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix whose singular values are all 1, in the dtype that is fast here.

    The five iterations leave singular values of 0.7 to 1.2, which is as good for a step.
    """
    a, b, c = _COEFFICIENTS
    x = matrix.to(fast_dtype(matrix.device.type))
    is_tall = x.shape[0] > x.shape[1]
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


class Optimiser:
    """Both, as one.

    Args:
        net: whose parameters that need gradients learn.
        rate: learning rate, until another is set.
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                kind = (name.startswith("mimi."), _is_matrix(name, parameter))
                groups.setdefault(kind, []).append(parameter)
        self._adam = torch.optim.AdamW(
            [
                {"params": groups[True, False], "scale": _ENCODER_RATE},
                {"params": groups[False, False], "scale": 1.0},
            ],
            lr=rate,
            betas=(0.9, 0.98),
            weight_decay=_WEIGHT_DECAY,
        )
        self._muon = Muon(
            [
                {"params": groups[True, True], "scale": _ENCODER_MATRIX_RATE},
                {"params": groups[False, True], "scale": _MATRIX_RATE},
            ],
            lr=rate,
        )

    def set_rate(self, rate: float) -> None:
        """Set the learning rate; the encoder's and the matrices' are multiples of it."""
        for group in self._groups():
            group["lr"] = rate * group["scale"]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for group in self._groups():
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Move what has a gradient."""
        self._adam.step()
        self._muon.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both."""
        return {"adam": self._adam.state_dict(), "muon": self._muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._adam.load_state_dict(state["adam"])
        self._muon.load_state_dict(state["muon"])

    def _groups(self) -> Iterator[dict[str, Any]]:
        yield from self._adam.param_groups
        yield from self._muon.param_groups


def _is_matrix(name: str, parameter: Tensor) -> bool:
    is_matrix = parameter.dim() == 2 and min(parameter.shape) >= _NARROW  # noqa: PLR2004
    return is_matrix and not any(part in name for part in _TABLES_AND_HEADS)
