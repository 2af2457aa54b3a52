"""How a command ends."""

import subprocess
import sys

import pytest

from tests.commands import ROOT

AFTER = """
import atexit, os, signal
from fume_jax.runtime import cli

def main():
    # Runs while Python exits, when the work is done.
    atexit.register(lambda: (os.kill(os.getpid(), signal.{name}), print("left", flush=True)))
    print("done", flush=True)
    return {code}

cli.run(main)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 0), ("SIGUSR2", 0), ("SIGTERM", 2)])
def test_a_signal_after_the_work_changes_no_exit_code(name, code):
    script = AFTER.format(name=name, code=code)
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (code, "done\nleft\n", "")
