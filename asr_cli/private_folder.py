"""A folder for the Unix sockets of one supervisor, which only its user may enter; it goes with the supervisor.

The system's temporary folder may have a name that no socket can be in; then others are tried.

One that is killed leaves its folder behind. The next start clears it away: each supervisor holds a lock in its folder
for as long as it lives, however it dies, so what can be locked belongs to nobody.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from asr_cli.usage import UsageError

PREFIX: Final = "asr-"
LOCK: Final = "supervisor.lock"
LONGEST_SOCKET_PATH: Final = 107
"""Bytes; what Linux keeps of a Unix socket's path is 108 long, with a zero at its end."""
_LONGEST_NAME: Final = "worker-99999"
"""Of a socket in such a folder."""
_USUAL_PLACE: Final = "/tmp"  # noqa: S108 - the folder made there is private


def holds_sockets(folder: str) -> bool:
    """Return whether sockets can be in ``folder``: its name is short and has no blank, which no endpoint may have."""
    n_bytes = len(os.fsencode(folder)) + len("/") + len(_LONGEST_NAME)
    return n_bytes <= LONGEST_SOCKET_PATH and not any(char.isspace() for char in folder)


@contextmanager
def private_folder(environ: Mapping[str, str]) -> Iterator[str]:
    """Make such a folder, and remove it at the end.

    Where the name of the system's temporary folder is too long for sockets, or has a blank, the folder is made in
    ``XDG_RUNTIME_DIR`` or /tmp; only if there is no place either, where no socket can be: ask ``holds_sockets``.

    Raises:
        UsageError: there is no place for one.
    """
    try:
        folder = _made(_places(environ))
    except OSError as error:
        raise _no_place(error) from error
    try:
        with _locked(Path(folder)):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _places(environ: Mapping[str, str]) -> list[str]:
    """Return where the folder may be made, the best place first."""
    temporary, of_user = tempfile.gettempdir(), environ.get("XDG_RUNTIME_DIR", "")
    if _suits(temporary):
        return [temporary]
    others = [place for place in (of_user, _USUAL_PLACE) if Path(place).is_absolute() and _suits(place)]
    return [*others, temporary]


def _suits(place: str) -> bool:
    return holds_sockets(f"{place}/{PREFIX}{8 * 'x'}")  # as mkdtemp names it


def _made(places: list[str]) -> str:
    *better, last = places
    for place in better:
        with suppress(OSError):
            return _made_in(place)
    return _made_in(last)


def _made_in(place: str) -> str:
    clear_abandoned(Path(place))
    return tempfile.mkdtemp(prefix=PREFIX, dir=place)


def _locked(folder: Path) -> IO[bytes]:
    try:
        lock = (folder / (LOCK + ".new")).open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Only now under its name: a lock that is seen is held, or its holder is dead.
        Path(lock.name).rename(folder / LOCK)
    except OSError as error:
        raise _no_place(error) from error
    return lock


def _no_place(error: OSError) -> UsageError:
    # Where there is none at all, Python names the folders that it tried, and no file.
    place = "" if error.filename is None else f": {error.filename}"
    return UsageError(f"no temporary folder for sockets: {error.strerror}{place}; TMPDIR names another place")


def clear_abandoned(parent: Path) -> None:
    """Remove the folders of this user's supervisors that are dead; what is somebody else's is left alone."""
    for folder in parent.glob(PREFIX + "*"):
        if is_abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def is_abandoned(folder: Path) -> bool:
    """Return whether a dead supervisor of this user has left ``folder`` behind."""
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return False
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:  # none of a supervisor, or none that we may enter
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
