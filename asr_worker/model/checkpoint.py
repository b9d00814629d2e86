"""Safetensors files: what a model needs of one, what is wrong with it, and how it gets into the model.

A model says which tensors it needs (``Need``); a file's header says which it has. ``problems_of`` compares the two
and names everything that is wrong; ``fill`` then maps the file into memory and copies each tensor straight to its
place on the device, in the dtype found there. No second copy of the weights is made, and nothing but safetensors is
read: unpickling a foreign file would run its code.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from shared.errors import CheckpointError

FLOAT_DTYPES: Final = ("F32", "BF16", "F16")
MAX_HEADER_BYTES: Final = 100_000_000
"""The format's own limit."""

_LENGTH_BYTES: Final = 8
_FOREIGN: Final = (
    (b"PK\x03\x04", "a PyTorch pickle (torch.save)"),
    (b"\x80", "a Python pickle"),
    (b"GGUF", "a GGUF file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for"),
    (b"<", "a web page"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One tensor under its published name, or under another that is accepted."""

    name: str
    shape: tuple[int, ...]
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Tensors that go into the model together; ``put`` takes them in order, as they are in the file."""

    wanted: tuple[Wanted, ...]
    put: Callable[..., None]
    instead: "Need | None" = None
    """Read in place of this need if its first tensor is missing and the other's first is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One tensor of a file, as its header describes it."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file holds, without its numbers."""

    role: str
    """The configuration key that names the file: errors begin with it."""
    path: Path
    tensors: dict[str, Found]
    raw: bytes
    """The header as it is, for fingerprints."""
    file_bytes: int
    data_bytes: int
    """Length of the numbers, which end the file."""


def read_header(role: str, path: Path) -> Header:
    """Read a file's header.

    Raises:
        CheckpointError: the file is missing, cut short, or no safetensors file.
    """
    where = f"{role} {path}"
    if not path.exists():
        msg = f"{where}: there is no such file"
        raise CheckpointError(msg)
    if not path.is_file():
        msg = f"{where}: is not a file"
        raise CheckpointError(msg)
    try:
        with path.open("rb") as file:
            file_bytes = path.stat().st_size
            start = file.read(64)
            length = int.from_bytes(start[:_LENGTH_BYTES], "little")
            if len(start) < _LENGTH_BYTES or length > min(file_bytes - _LENGTH_BYTES, MAX_HEADER_BYTES):
                msg = f"{where}: {_what_it_is(start, file_bytes)}"
                raise CheckpointError(msg)
            file.seek(_LENGTH_BYTES)
            raw = file.read(length)
    except OSError as error:
        msg = f"{where}: cannot be read: {error.strerror}"
        raise CheckpointError(msg) from error
    return _parse(role, path, raw, file_bytes)


def _what_it_is(start: bytes, file_bytes: int) -> str:
    if not start:
        return "is empty"
    for magic, name in _FOREIGN:
        if start.startswith(magic):
            return f"is {name}; only safetensors files are read"
    if start[_LENGTH_BYTES : _LENGTH_BYTES + 2] == b'{"':
        return f"is cut short: its header alone is longer than its {file_bytes} bytes"
    return "is no safetensors file"


def _parse(role: str, path: Path, raw: bytes, file_bytes: int) -> Header:
    where = f"{role} {path}"
    tensors: dict[str, Found] = {}
    data_bytes = 0
    try:
        entries = json.loads(raw)
        entries.pop("__metadata__", None)
        for name, entry in entries.items():
            tensors[name] = Found(shape=tuple(int(size) for size in entry["shape"]), dtype=str(entry["dtype"]))
            data_bytes = max(data_bytes, int(entry["data_offsets"][1]))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        msg = f"{where}: is no safetensors file: its header cannot be understood"
        raise CheckpointError(msg) from error
    expected = _LENGTH_BYTES + len(raw) + data_bytes
    if expected != file_bytes:
        how = "cut short" if file_bytes < expected else "too long"
        msg = f"{where}: is {how}: it has {file_bytes} bytes, its header describes {expected}"
        raise CheckpointError(msg)
    return Header(role=role, path=path, tensors=tensors, raw=raw, file_bytes=file_bytes, data_bytes=data_bytes)


def problems_of(header: Header, needs: Iterable[Need]) -> list[str]:
    """Return everything that is wrong with a file; tensors that nothing needs are ignored.

    Problems of many layers that differ in a number only are one line.
    """
    found = [
        (re.sub(r"\.\d+(?=\.)", ".*", wanted.name), complaint, wanted.name)
        for need in needs
        for wanted in _chosen(header, need).wanted
        if (complaint := _complaint(header, wanted))
    ]
    lines = []
    for (pattern, complaint), group in groupby(sorted(found), key=lambda problem: problem[:2]):
        names = [name for _, _, name in group]
        name = f"'{names[0]}'" if len(names) == 1 else f"'{pattern}' ({len(names)} tensors)"
        lines.append(f"{header.role} {header.path}: tensor {name}: {complaint}")
    return lines


def fill(header: Header, needs: Iterable[Need]) -> None:
    """Copy every needed tensor into the model. The file must have been found without problems.

    Raises:
        CheckpointError: the file changed meanwhile, its data do not fit its header, they are no numbers, or all are 0.
    """
    is_empty = True
    try:
        with safe_open(str(header.path), framework="pt") as file, torch.no_grad():
            for need in needs:
                chosen = _chosen(header, need)
                names = [_name_in(header, wanted) for wanted in chosen.wanted]
                tensors = [file.get_tensor(name) for name in names]
                for name, tensor in zip(names, tensors, strict=True):
                    _require_numbers(header, name, tensor)
                    is_empty = is_empty and not tensor.any()
                chosen.put(*tensors)
    except (SafetensorError, OSError) as error:
        msg = f"{header.role} {header.path}: cannot be read: {error}"
        raise CheckpointError(msg) from error
    if is_empty:
        msg = f"{header.role} {header.path}: holds nothing but zeros; its download or copy was broken off, or it failed"
        raise CheckpointError(msg)


def _require_numbers(header: Header, name: str, tensor: Tensor) -> None:
    # With one NaN a model runs as ever and never says a word. The two ends tell of all between them, in one pass.
    if not _is_finite(tensor):
        msg = (
            f"{header.role} {header.path}: tensor '{name}': holds infinity or NaN; the file is damaged, or its training"
            " went wrong"
        )
        raise CheckpointError(msg)


def require_finite(header: Header, model: nn.Module) -> None:
    """See that numbers are still numbers once they are in the model: its format may be narrower than the file's.

    Raises:
        CheckpointError: a parameter holds infinity or NaN.
    """
    for name, parameter in model.named_parameters():
        if not _is_finite(parameter.detach()):
            kind = str(parameter.dtype).removeprefix("torch.")
            msg = f"{header.role} {header.path}: '{name}' holds infinity or NaN once it is read as {kind}"
            raise CheckpointError(msg)


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.numel() or all(math.isfinite(float(end)) for end in tensor.aminmax())


def copy_into(parameter: Tensor) -> Callable[[Tensor], None]:
    """Return a ``Need.put`` that copies one tensor of the same number of elements into ``parameter``."""

    def put(tensor: Tensor) -> None:
        with torch.no_grad():
            parameter.copy_(tensor.view(parameter.shape))

    return put


def _chosen(header: Header, need: Need) -> Need:
    if need.instead is None or _name_in(header, need.wanted[0]) or not _name_in(header, need.instead.wanted[0]):
        return need
    return need.instead


def _names(wanted: Wanted) -> Iterator[str]:
    yield wanted.name
    yield from wanted.aliases


def _name_in(header: Header, wanted: Wanted) -> str:
    """Return the name under which the file has the tensor, or the empty string."""
    return next((name for name in _names(wanted) if name in header.tensors), "")


def _complaint(header: Header, wanted: Wanted) -> str:
    name = _name_in(header, wanted)
    if not name:
        return f"missing, expected shape {list(wanted.shape)}"
    found = header.tensors[name]
    wrong = []
    if found.shape != wanted.shape:
        wrong.append(f"found shape {list(found.shape)}, expected {list(wanted.shape)}")
    if found.dtype not in FLOAT_DTYPES:
        wrong.append(f"found dtype {found.dtype}, expected one of {', '.join(FLOAT_DTYPES)}")
    return "; ".join(wrong)
