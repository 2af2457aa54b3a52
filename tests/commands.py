"""Running the commands as a user does: real processes."""

import atexit
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A training by configs/demo.py that is over soon.
SMALL = [
    "--config.model.backbone=tiny",
    "--config.data.height=64",
    "--config.data.width=80",
    "--config.train.batch_size=4",
    "--config.train.epochs=12",
    "--config.eval.batch_size=5",
    "--config.eval.every_epochs=2",
    "--config.optimizer.warmup_epochs=0",
    "--config.log.every_steps=6",
]


def environment(devices=1):
    # Most of the time goes into compiling, which need not be thorough here.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return os.environ | {"XLA_FLAGS": flags}


@functools.cache
def _server():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    server = subprocess.Popen([sys.executable, "-m", "tests.fork_server"], cwd=ROOT, env=environment(), **pipes)
    atexit.register(server.kill)
    return server


def run(module, *arguments, devices=1, terminated=False, **variables):
    """The finished process of a command, forked from one that has imported the libraries.

    `variables` are those of its environment; with `terminated` it gets SIGTERM when it would parse its flags.
    """
    argv = [module, *map(str, arguments)]
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
        server = _server()
        request = {"argv": argv, "environment": environment(devices) | variables, "terminated": terminated, **paths}
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(argv, code, *(Path(path).read_text() for path in paths.values()))


def run_fresh(module, *arguments, devices=1):
    """The finished process of a command in an interpreter of its own."""
    command = [sys.executable, "-m", "tests.tiny", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=600)


def start(module, *arguments, devices=1, group=False):
    """The running process, with `group` the first of its own; standard error goes where standard output does."""
    command = [sys.executable, "-m", "tests.tiny", module, *map(str, arguments)]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    pipe["start_new_session"] = group
    return subprocess.Popen(command, cwd=ROOT, env=environment(devices), **pipe)


def train_arguments(dataset, workdir):
    return ["--config=demo", f"--workdir={workdir}", f"--config.data.path={dataset}", *SMALL]


def assert_refused(result, *words):
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1, result.stderr
    for word in words:
        assert word in result.stderr
