"""Whether freed memory is used again; in processes of their own, since the choice is one process's for good."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
from fume_jax.runtime.malloc import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def use():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b"1" * 2**26
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

def work():
    use()
    use()

faults = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(*faults)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
@pytest.mark.parametrize("memory", ["kept", "given back"])
def test_memory_is_cleared_by_the_system_once_or_every_time(memory):
    result = subprocess.run([sys.executable, "-c", FAULTS, memory], capture_output=True, text=True, check=True)
    first, second = map(int, result.stdout.split())
    if memory == "kept":
        assert second < 100
    else:
        assert min(first, second) > 100
