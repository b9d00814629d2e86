"""A log file that starts afresh every day (UTC) and keeps a bounded number of old days.

    log.demo   --midnight-->   log.demo.2026-11-21   (the oldest beyond ``KEPT_DAYS`` is removed)

Several processes may write the same file: each line is one append, and who rotates holds a lock on the folder. A
process that comes second finds another file under the name and only opens that.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

KEPT_DAYS: Final = 14
_DAY_GLOB: Final = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]"


def utc_today() -> date:
    """Return the day it is in Greenwich."""
    return datetime.now(UTC).date()


class DailyFile:
    """Appends lines to ``path``. Not thread-safe: one thread writes.

    Raises:
        OSError: on construction, if the folder cannot be made or the file not opened.
    """

    def __init__(self, path: Path, *, today: Callable[[], date] = utc_today, kept_days: int = KEPT_DAYS) -> None:
        self._path = path
        self._today = today
        self._kept_days = kept_days
        self._fd = -1
        self._is_cut = False
        path.parent.mkdir(parents=True, exist_ok=True)
        self._day = today()
        with self._locked_folder():
            with contextlib.suppress(FileNotFoundError):
                written = datetime.fromtimestamp(path.stat().st_mtime, UTC).date()
                if written < self._day:
                    self._put_away(written)
            self._open()

    def write(self, line: str) -> None:
        """Append ``line`` and a newline; on the first line of a new day, rotate before.

        Raises:
            OSError: the disk is full or gone; the line is lost.
        """
        if (day := self._today()) != self._day:
            self._rotate(day)
        data = (b"\n" if self._is_cut else b"") + line.encode("utf-8", "backslashreplace") + b"\n"
        # A disk that becomes full takes the beginning of a line; the next one must not be glued to it.
        n_written = os.write(self._fd, data)
        self._is_cut = data[n_written - 1 : n_written] != b"\n"

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _rotate(self, day: date) -> None:
        # Somebody may have tidied up.
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked_folder():
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(self._fd).st_ino:
                    self._put_away(self._day)
            self._open()
            self._day = day

    def _open(self) -> None:
        opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self.close()
        self._fd = opened
        self._is_cut = False

    def _put_away(self, day: date) -> None:
        dated = self._path.with_name(f"{self._path.name}.{day.isoformat()}")
        if not dated.exists():  # else somebody set the clock back: better one long file than a lost one
            self._path.rename(dated)
        days = sorted(self._path.parent.glob(f"{_glob_escaped(self._path.name)}.{_DAY_GLOB}"))
        for old in days[: max(0, len(days) - self._kept_days)]:
            old.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked_folder(self) -> Iterator[None]:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def _glob_escaped(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
