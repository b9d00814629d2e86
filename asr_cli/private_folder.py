"""A folder for the Unix sockets of one supervisor, which only its user may enter; it goes with the supervisor.

One that is killed leaves its folder behind. The next start clears it away: each supervisor holds a lock in its folder
for as long as it lives, however it dies, so what can be locked belongs to nobody.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from asr_cli.usage import UsageError

PREFIX: Final = "asr-"
LOCK: Final = "supervisor.lock"


@contextmanager
def private_folder() -> Iterator[str]:
    """Make such a folder, and remove it at the end.

    Raises:
        UsageError: there is no place for one.
    """
    try:
        clear_abandoned(Path(tempfile.gettempdir()))
        folder = tempfile.mkdtemp(prefix=PREFIX)
    except OSError as error:
        raise _no_place(error) from error
    try:
        with _locked(Path(folder)):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
