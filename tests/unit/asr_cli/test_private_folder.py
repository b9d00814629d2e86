import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asr_cli import private_folder as module
from asr_cli.private_folder import LOCK, holds_sockets, private_folder
from asr_cli.usage import UsageError

HOLDER = """
import signal
from asr_cli.private_folder import private_folder
with private_folder({}) as folder:
    print(folder, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def holder(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """Another supervisor, which has its folder."""
    environ = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen([sys.executable, "-c", HOLDER], env=environ, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def folder_of(process: subprocess.Popen[str]) -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_only_its_user_may_enter_it_and_nothing_is_left_of_it(temporary: Path) -> None:
    with private_folder({}) as folder:
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        assert Path(folder).parent == temporary
    assert list(temporary.iterdir()) == []


def test_what_a_killed_supervisor_left_goes_with_the_next_start(holder: subprocess.Popen[str]) -> None:
    left = folder_of(holder)
    holder.kill()
    holder.wait()
    (left / "worker-0").touch()

    with private_folder({}):
        assert not left.exists()


def test_a_living_supervisor_keeps_its_folder(holder: subprocess.Popen[str]) -> None:
    its = folder_of(holder)
    with private_folder({}):
        assert its.exists()
    assert (its / LOCK).exists()


def test_what_is_not_a_supervisors_stays(temporary: Path) -> None:
    strangers = [temporary / "asr-data", temporary / "asr-file", temporary / "asr-link"]
    elsewhere = temporary / "elsewhere"
    for folder in (strangers[0], elsewhere):
        folder.mkdir()
    (elsewhere / LOCK).touch()
    strangers[1].touch()
    strangers[2].symlink_to(elsewhere)

    with private_folder({}):
        pass

    assert [path.exists() for path in (*strangers, elsewhere / LOCK)] == [True] * 4


def test_no_place_for_it_is_said_in_a_sentence(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "absent"))
    said = r"^no temporary folder for sockets: No such file .*absent.*; TMPDIR names "
    with pytest.raises(UsageError, match=said), private_folder({}):
        pass


def test_no_place_for_any_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])  # nobody may write there
    said = r"^no temporary folder for sockets: No usable temporary directory found in \['/proc'\]; TMPDIR names "
    with pytest.raises(UsageError, match=said), private_folder({}):
        pass


@pytest.mark.parametrize("name", ["my files", "ü" * 60])
class TestATemporaryFolderWhoseNameIsNoneForSockets:
    @pytest.fixture(autouse=True)
    def unfit(self, temporary: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
        unfit = temporary / name
        unfit.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(unfit))
        return unfit

    def test_the_users_own_runtime_folder_is_taken_instead(self, temporary: Path) -> None:
        mine = temporary / "run"
        mine.mkdir()
        with private_folder({"XDG_RUNTIME_DIR": str(mine)}) as folder:
            assert (Path(folder).parent, holds_sockets(folder)) == (mine, True)
            assert Path(folder).stat().st_mode & 0o777 == 0o700
        assert list(mine.iterdir()) == []

    @pytest.mark.parametrize("runtime_dir", ["", "run", "/absent", "/with blank"])
    def test_the_usual_one_is_taken_if_there_is_no_such(self, runtime_dir: str) -> None:
        with private_folder({"XDG_RUNTIME_DIR": runtime_dir}) as folder:
            assert Path(folder).parent == Path("/tmp")
        assert not Path(folder).exists()

    def test_it_is_taken_itself_if_there_is_no_other(self, unfit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_USUAL_PLACE", "/absent")
        with private_folder({}) as folder:
            assert (Path(folder).parent, holds_sockets(folder)) == (unfit, False)
