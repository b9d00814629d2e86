import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from shared.allocator import keep_freed_memory

def faults_of_ten_blocks():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        bytearray(8 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if not keep_freed_memory(64 << 20):
    sys.exit(3)
faults_of_ten_blocks()
print(faults_of_ten_blocks())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc has such a setting")
def test_freed_memory_is_used_again_without_the_kernel() -> None:
    """In a process of its own: it cannot be undone."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library has no such setting")
    assert done.returncode == 0, done.stderr
    # 8 MB are 2048 pages.
    assert int(done.stdout) < 100
