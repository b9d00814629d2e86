"""What is known of the published model files: sizes, and sha256 sums where they are known in full.

A file that differs is not what its name says: cut off, exchanged or newer. Files that are not listed are not judged
here (the loader checks every tensor), but for one thing: in the hub's cache a large file's blob is named by its sum.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import CheckpointError
from shared.hub import HubFile


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """What a file must be."""

    size_bytes: int
    sha256: str | None = None


MIMI: Final = "mimi-pytorch-e351c8d8@125.safetensors"
_MIMI_FILE: Final = PublishedFile(
    size_bytes=384_644_900, sha256="09b782f0629851a271227fb9d36db65c041790365f11bbe5d3d59369cf863f50"
)
_STT_REPOSITORIES: Final = (
    "kyutai/stt-1b-en_fr",
    "kyutai/stt-1b-en_fr-candle",
    "kyutai/stt-2.6b-en",
    "kyutai/stt-2.6b-en-candle",
)
PUBLISHED: Final[Mapping[tuple[str, str], PublishedFile]] = {
    **{(repo, MIMI): _MIMI_FILE for repo in _STT_REPOSITORIES},
    ("kyutai/stt-1b-en_fr-candle", "model.safetensors"): PublishedFile(
        size_bytes=1_978_522_200, sha256="b9e97c53229dce728d65c76bfa892f7b563c69d671899f0ebc6518582dddec6f"
    ),
    ("kyutai/stt-1b-en_fr-candle", "tokenizer_en_fr_audio_8000.model"): PublishedFile(size_bytes=120_378),
    ("kyutai/stt-2.6b-en", "model.safetensors"): PublishedFile(
        size_bytes=5_234_275_128, sha256="2471add7da1fdb2d5dc4561e88a9069376333d992760d55d29d1db46c52849b2"
    ),
    ("kyutai/stt-2.6b-en", "tokenizer_en_audio_4000.model"): PublishedFile(size_bytes=59_339),
}
"""By repository and file."""

_ADVICE: Final = "delete it and fetch it again, or name the revision you mean: hf://owner/repo@revision/file"
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def verify(path: Path, wanted: HubFile, *, published: Mapping[tuple[str, str], PublishedFile] = PUBLISHED) -> str:
    """Check the file at ``path`` against what is known of ``wanted``; return in words what was checked.

    Raises:
        CheckpointError: it is another file.
    """
    known = published.get((wanted.repo, wanted.file)) if wanted.revision is None else None
    label = f"{wanted.repo}/{wanted.file} at {path}"
    size = path.stat().st_size
    if known is not None and size != known.size_bytes:
        message = f"{label}: {size} bytes, the published file has {known.size_bytes}; {_ADVICE}"
        raise CheckpointError(message)
    blob = path.resolve().name
    expected = (known.sha256 if known else None) or (blob if _SHA256.fullmatch(blob) else None)
    if expected is None:
        return "size as published" if known else "no sum known"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        message = f"{label}: sha256 {found}, expected {expected}; {_ADVICE}"
        raise CheckpointError(message)
    return "sha256 as published" if known and known.sha256 else "sha256 as the hub says"
