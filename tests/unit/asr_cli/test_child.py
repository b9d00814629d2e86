import os
import subprocess
import sys
import time
from pathlib import Path

PARENT = """
import subprocess, sys, time
from asr_cli.child import bound
child = subprocess.Popen(bound(sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"))
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_bound_program_dies_with_a_parent_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        pid = int((said - {"here"}).pop())
        parent.kill()
        # Both ends of the pipe are the child's by now: it is closed when that is gone.
        assert parent.stdout.read() == ""
    deadline = time.monotonic() + 10
    while _lives(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
