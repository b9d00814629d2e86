"""What Mimi's convolutions remember: the last columns of each one's input, in one flat row for each slot, the *carry*.

    carry row   | conv 0 | squeeze 1 | down 1 | ... | last | downsample |      floats, 46 kB for the published size
    one conv    joined = [carried columns ; new columns]  ->  valid convolution  ->  carry keeps joined's last columns

Offline there is silence instead. Tensors are ``[B, T, C]``, channels last.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from asr_worker.model.products import write_elu
from asr_worker.model.rows import Rows, all_rows

if TYPE_CHECKING:
    from asr_worker.model.seanet import CausalConv


class Past(Protocol):
    """Where a convolution finds the columns before its input."""

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Put the past before ``x`` ``[B, T, C]``, activated if ``conv`` wants that; return ``conv.windows`` of both.

        What is returned may be overwritten by the next call.
        """
        ...

    def activate(self, x: Tensor) -> Tensor:
        """Return the ELU of ``x``, which may be overwritten."""
        ...

    def add(self, x: Tensor, conv: "CausalConv", inner: Tensor) -> Tensor:
        """Return ``x`` plus what ``conv``, of kernel 1, makes of ``inner``; both may be overwritten."""
        ...


class Silence:
    """The past of an offline forward: zeros, as at a session's start. Gradients flow through it."""

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Pad with zeros on the left."""
        return conv.windows(functional.pad(functional.elu(x) if conv.is_activated else x, (0, 0, conv.n_carried, 0)))

    def activate(self, x: Tensor) -> Tensor:
        """Leave ``x`` as it is."""
        return functional.elu(x)

    def add(self, x: Tensor, conv: "CausalConv", inner: Tensor) -> Tensor:
        """Leave ``x`` as it is."""
        return x + conv(inner, self)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Window:
    """What a convolution reads in one step, and where: ``[carried columns ; new columns]``, all views."""

    windows: Tensor
    """As ``conv.windows`` returns them."""
    past: Tensor
    new: Tensor
    last: Tensor
    """The columns that the next step will need; ``kept`` is where they are until then."""
    kept: Tensor


class Carry:
    """The past of every convolution for a batch of slots.

    On CPU all convolutions read from one piece of memory, one after the other: it stays in the core's caches. Views
    into it are made once for each convolution and number of slots, for making them costs more than a small product.
    """

    def __init__(self, *, n_rows: int, n_floats: int, device: torch.device) -> None:
        self.kept = torch.zeros(n_rows, n_floats, device=device)
        self._copies = torch.zeros_like(self.kept)
        self._memory = torch.empty(0, device=device)
        self._windows: dict[tuple[int, int, bool], _Window] = {}
        self._everyone = all_rows(n_rows)

    def begin(self, active: Tensor, rows: Rows | None = None) -> "CarryStep":
        """Prepare a step of the slots in ``rows``, n in number, that moves on those in ``active`` ``[n]``."""
        return CarryStep(self, rows or self._everyone, active)

    def reset(self, chosen: Tensor, rows: Rows | None = None) -> None:
        """Make those of ``rows`` silent that are in the mask ``[n]``. A fill, not a product: it also removes NaN."""
        rows = rows or self._everyone
        rows.put(self.kept, rows.take(self.kept).masked_fill(chosen[:, None], 0.0))

    def state(self, n_rows: int, *, in_place: bool) -> Tensor:
        """Return what a step of so many slots reads and overwrites: ``kept`` itself, or room for a copy."""
        return (self.kept if in_place else self._copies)[:n_rows]

    def window(self, conv: "CausalConv", x: Tensor, *, in_place: bool) -> _Window:
        """Return where ``conv`` reads ``x`` ``[n, T, C]`` and its past."""
        key = (conv.carry_offset, len(x), in_place)
        window = self._windows.get(key)
        if window is not None and window.new.shape == x.shape:
            return window
        n_floats = len(x) * (conv.n_carried + x.shape[1]) * x.shape[2]
        if x.device.type != "cpu":
            # A captured graph may not read what a larger one lets go.
            return self._window(x.new_empty(n_floats), conv, x, in_place=in_place)
        if n_floats > len(self._memory):
            self._windows.clear()
            self._memory = x.new_empty(n_floats)
        window = self._window(self._memory[:n_floats], conv, x, in_place=in_place)
        self._windows[key] = window
        return window

    def _window(self, memory: Tensor, conv: "CausalConv", x: Tensor, *, in_place: bool) -> _Window:
        n_rows, n_columns, n_channels = x.shape
        joined = memory.view(n_rows, -1, n_channels)
        span = slice(conv.carry_offset, conv.carry_offset + conv.n_carried * n_channels)
        kept = self.state(n_rows, in_place=in_place)[:, span].view(n_rows, conv.n_carried, n_channels)
        past, new, last = joined[:, : conv.n_carried], joined[:, conv.n_carried :], joined[:, n_columns:]
        return _Window(conv.windows(joined), past, new, last, kept)


class CarryStep:
    """The past of every convolution for one step; slots that are not active keep theirs at ``commit``."""

    def __init__(self, carry: Carry, rows: Rows, active: Tensor) -> None:
        self._carry = carry
        self._rows = rows
        self._active = active
        # Where the host may look, and everybody moves on, nothing needs to be kept from before.
        self._is_whole = rows.runs is not None and active.device.type == "cpu" and bool(active.all())
        self._in_place = self._is_whole and rows.index is None
        if not self._in_place:
            carry.state(len(active), in_place=False).copy_(rows.take(carry.kept))

    def extend(self, conv: "CausalConv", x: Tensor) -> Tensor:
        """Put the carried columns before ``x`` and note what the next step will need."""
        window = self._carry.window(conv, x, in_place=self._in_place)
        window.past.copy_(window.kept)
        if conv.is_activated:
            write_elu(x, window.new)
        else:
            window.new.copy_(x)
        window.kept.copy_(window.last)
        return window.windows

    def activate(self, x: Tensor) -> Tensor:
        """Overwrite ``x``."""
        write_elu(x, x)
        return x

    def add(self, x: Tensor, conv: "CausalConv", inner: Tensor) -> Tensor:
        """Overwrite both."""
        return conv.add_to(x, self.activate(inner) if conv.is_activated else inner)

    def commit(self) -> None:
        """End the step."""
        if self._in_place:
            return
        state = self._carry.state(len(self._active), in_place=False)
        if not self._is_whole:
            state = torch.where(self._active[:, None], state, self._rows.take(self._carry.kept))
        self._rows.put(self._carry.kept, state)
