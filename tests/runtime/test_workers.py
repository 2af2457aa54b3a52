"""Worker processes end with their parent."""

import subprocess
import sys

import psutil

from tests.commands import ROOT

PARENT = """
import multiprocessing, time
from fume_jax.runtime.workers import follow_parent

def work(pipe):
    follow_parent()
    pipe.send("ready")
    time.sleep(600)

if __name__ == "__main__":
    own, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=[other])
    process.start()
    own.recv()
    print(process.pid, flush=True)
    time.sleep(600)
"""


def test_a_worker_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    command = [sys.executable, str(script)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(ROOT)}) as parent:
        worker = psutil.Process(int(parent.stdout.readline()))
        for number in (2, 15):
            worker.send_signal(number)
        assert worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE, "signals are the parent's"
        parent.kill()
    _, alive = psutil.wait_procs([worker], timeout=10)
    for process in alive:
        process.kill()
    assert not alive
