import os
import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from shared.daily_file import DailyFile, utc_today


class Calendar:
    """A day that a test turns over."""

    def __init__(self) -> None:
        self.day = utc_today()

    def __call__(self) -> date:
        return self.day

    def turn(self, days: int = 1) -> None:
        self.day += timedelta(days=days)


def content(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in sorted(folder.iterdir())}


def test_lines_are_appended_and_the_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "logs" / "log.unit"
    for line in ("first", "second"):
        file = DailyFile(path)
        file.write(line)
        file.close()
        file.close()

    assert path.read_text() == "first\nsecond\n"
    assert path.stat().st_mode & 0o007 == 0


def test_a_new_day_starts_a_new_file(tmp_path: Path) -> None:
    calendar = Calendar()
    file = DailyFile(tmp_path / "log.unit", today=calendar)
    yesterday = calendar.day.isoformat()
    file.write("old")
    calendar.turn()
    file.write("new")
    file.write("newer")
    file.close()

    assert content(tmp_path) == {"log.unit": ["new", "newer"], f"log.unit.{yesterday}": ["old"]}


def test_a_line_that_a_full_disk_cut_off_is_not_glued_to_the_next(tmp_path: Path) -> None:
    path, calendar = tmp_path / "log.unit", Calendar()
    file = DailyFile(path, today=calendar)
    with _as_large_as(8):
        file.write("the first line")
        with pytest.raises(OSError, match="File too large"):
            file.write("lost")
    file.write("whole")
    file.write("again")
    assert path.read_text().splitlines() == ["the firs", "whole", "again"]

    with _as_large_as(path.stat().st_size + 3):
        file.write("cut off at midnight")
    calendar.turn()
    file.write("new")
    file.close()
    assert path.read_text() == "new\n"


@contextmanager
def _as_large_as(n_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond ``n_bytes``, as on a disk that is full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    held = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, held)


def test_a_folder_that_somebody_removed_is_made_again_at_midnight(tmp_path: Path) -> None:
    calendar = Calendar()
    file = DailyFile(tmp_path / "logs" / "log.unit", today=calendar)
    file.write("old")
    shutil.rmtree(tmp_path / "logs")
    calendar.turn()
    file.write("new")
    file.close()

    assert content(tmp_path / "logs") == {"log.unit": ["new"]}


def test_a_file_of_an_earlier_day_is_put_away_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "log.unit"
    path.write_text("old\n")
    noon = datetime(2024, 2, 29, 12, tzinfo=UTC).timestamp()
    os.utime(path, (noon, noon))

    file = DailyFile(path)
    file.write("new")
    file.close()

    assert content(tmp_path) == {"log.unit": ["new"], "log.unit.2024-02-29": ["old"]}


def test_two_processes_share_the_file_and_lose_no_line(tmp_path: Path) -> None:
    calendars = [Calendar(), Calendar()]
    files = [DailyFile(tmp_path / "log.unit", today=calendar) for calendar in calendars]
    yesterday = calendars[0].day.isoformat()
    files[0].write("a1")
    files[1].write("b1")
    calendars[0].turn()
    files[0].write("a2")
    files[1].write("b1, late by its own clock")
    calendars[1].turn()
    files[1].write("b2")
    files[0].write("a3")
    for file in files:
        file.close()

    assert content(tmp_path) == {
        "log.unit": ["a2", "b2", "a3"],
        f"log.unit.{yesterday}": ["a1", "b1", "b1, late by its own clock"],
    }


def test_a_process_that_rotates_second_leaves_todays_file_alone_even_if_yesterdays_is_gone(tmp_path: Path) -> None:
    calendars = [Calendar(), Calendar()]
    files = [DailyFile(tmp_path / "log.unit", today=calendar) for calendar in calendars]
    yesterday = calendars[0].day.isoformat()
    for number, file in enumerate(files):
        calendars[number].turn()
        file.write(f"today {number}")
        (tmp_path / f"log.unit.{yesterday}").unlink(missing_ok=True)  # moved elsewhere by a collector of logs
        file.close()

    assert content(tmp_path) == {"log.unit": ["today 0", "today 1"]}


def test_only_so_many_days_are_kept_and_other_files_are_left_alone(tmp_path: Path) -> None:
    calendar = Calendar()
    (tmp_path / "log.unit.notes").write_text("mine\n")
    (tmp_path / "log.unit2.2020-01-01").write_text("another instance's\n")
    file = DailyFile(tmp_path / "log.unit", today=calendar, kept_days=3)
    days = []
    for number in range(6):
        file.write(f"day {number}")
        days.append(calendar.day.isoformat())
        calendar.turn()
    file.close()

    assert content(tmp_path) == {
        "log.unit": ["day 5"],
        **{f"log.unit.{day}": [f"day {number}"] for number, day in list(enumerate(days))[2:5]},
        "log.unit.notes": ["mine"],
        "log.unit2.2020-01-01": ["another instance's"],
    }


def test_a_clock_that_was_set_back_costs_no_line(tmp_path: Path) -> None:
    calendar = Calendar()
    file = DailyFile(tmp_path / "log.unit", today=calendar)
    for step in (1, -1, 1):
        file.write(f"before {step}")
        calendar.turn(step)
    file.write("end")
    file.close()

    written = [line for lines in content(tmp_path).values() for line in lines]
    assert sorted(written) == ["before -1", "before 1", "before 1", "end"]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match="file"):
        DailyFile(tmp_path / "file" / "logs" / "log.unit")
