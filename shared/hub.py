"""From a file reference of the configuration to a file on this machine.

    weights/lm.safetensors            the working directory if it is there, else the folder of the TOML file
    hf://owner/repo/file              the Hugging Face cache; downloaded if it is not there
    hf://owner/repo@revision/file     likewise, one revision of it

What is in the cache is used without asking anybody: after ``asr fetch`` everything starts offline. The revision stands
behind the repository, because published file names have an "@" of their own.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.errors import CheckpointError, ConfigError
from shared.extras import install_command

_SCHEME: Final = "hf://"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a repository on the Hugging Face hub."""

    repo: str
    revision: str | None
    file: str


def parse_reference(reference: str) -> HubFile | None:
    """Return the hub file that ``reference`` names, or None if it is a plain path.

    Raises:
        ConfigError: it begins with ``hf://`` and does not go on as it must.
    """
    if not reference.startswith(_SCHEME):
        return None
    owner, _, rest = reference.removeprefix(_SCHEME).partition("/")
    name, _, file = rest.partition("/")
    name, at, revision = name.partition("@")
    pieces = [owner, name, *file.split("/")]
    if (at and not revision) or any(piece in ("", ".", "..") for piece in pieces):
        message = f"{reference}: must be hf://owner/repo/file or hf://owner/repo@revision/file"
        raise ConfigError(message)
    return HubFile(repo=f"{owner}/{name}", revision=revision or None, file=file)


def locate(path: str, source: Path) -> Path:
    """Return where ``path`` is meant: as it is if absolute or in the working directory, else beside ``source``."""
    plain = Path(path)
    # Not Path.exists(), which may fail: below a folder that we may not enter, or of a name that is too long.
    return plain if plain.is_absolute() or os.path.exists(plain) else source.parent / plain  # noqa: PTH110


def places(reference: str, source: Path, *, cache: Path | None = None) -> str:
    """Return where ``find`` looks for the file that ``reference`` names, in words.

    Raises:
        ConfigError: as ``find``.
    """
    if parse_reference(reference) is not None:
        _require_hub(reference)
        from huggingface_hub.constants import HF_HUB_CACHE  # noqa: PLC0415 as below

        return f"the hub's cache, {cache or HF_HUB_CACHE}"
    beside = [Path(reference).absolute(), (source.parent / reference).absolute()]
    return " and ".join(dict.fromkeys(map(str, beside)))


def find(reference: str, source: Path, *, cache: Path | None = None) -> Path | None:
    """Return the file if it is on this machine, without any network; None if it is not.

    Raises:
        CheckpointError: it may be here, but we cannot read it.
        ConfigError: the reference is malformed, or huggingface_hub is needed and not installed.
    """
    wanted = parse_reference(reference)
    if wanted is None:
        path = locate(reference, source)
        return path if _is_readable_file(reference, path) else None
    _require_hub(reference)
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415 half a second, and not everywhere installed

    try:
        cached = try_to_load_from_cache(wanted.repo, wanted.file, cache_dir=cache, revision=wanted.revision)
    except ValueError as error:  # the hub allows fewer names than we do
        message = f"{reference}: {str(error).splitlines()[0]}"
        raise ConfigError(message) from error
    return Path(cached) if isinstance(cached, str) else None


def resolve(reference: str, source: Path, *, cache: Path | None = None) -> Path:
    """Return the file that ``reference`` names, downloading it if it must be.

    Args:
        reference: a path, or ``hf://...``; ``$VAR`` has been replaced already.
        source: the configuration file it stands in.
        cache: the hub's cache folder, if not the usual one (``HF_HOME``).

    Raises:
        CheckpointError: there is no such file, here or there, or we cannot read it.
        ConfigError: as ``find``.
    """
    found = find(reference, source, cache=cache)
    if found is not None:
        return found
    wanted = parse_reference(reference)
    if wanted is None:
        message = f"{reference}: there is no such file; looked for {places(reference, source)}"
        raise CheckpointError(message)
    return download(reference, wanted, cache=cache)


def download(reference: str, wanted: HubFile, *, cache: Path | None = None) -> Path:
    """Bring the newest ``wanted`` file into the cache and return where it lies there. Shows progress on a terminal.

    Raises:
        CheckpointError: it cannot be had.
        ConfigError: huggingface_hub is not installed.
    """
    _require_hub(reference)
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 as above

    try:
        return Path(hf_hub_download(wanted.repo, wanted.file, revision=wanted.revision, cache_dir=cache))
    except Exception as error:  # whatever it fetches with, another library in each version, has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        message = f"{reference}: not in the cache and not to be had now (asr fetch downloads ahead): {reason}"
        raise CheckpointError(message) from error


def _is_readable_file(reference: str, path: Path) -> bool:
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
        if is_file:
            path.open("rb").close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        where = "" if str(path) == reference else f"{path} "
        message = f"{reference}: {where}cannot be read: {error.strerror}"
        raise CheckpointError(message) from error
    return is_file


def _require_hub(reference: str) -> None:
    try:
        import huggingface_hub  # noqa: F401, PLC0415 as above
    except ImportError:
        message = f"{reference}: hf:// needs huggingface_hub: {install_command('worker')} (or [cli])"
        raise ConfigError(message) from None
