"""Running the commands as a user does: real processes."""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[1]
# A training by configs/demo.py that is over soon.
SMALL = [
    "--config.model.backbone=tiny",
    "--config.data.height=64",
    "--config.data.width=80",
    "--config.train.batch_size=4",
    "--config.train.epochs=6",
    "--config.eval.batch_size=5",
    "--config.eval.every_epochs=2",
    "--config.optimizer.warmup_epochs=0",
    "--config.log.every_steps=6",
]


def environment(devices=1):
    # Most of the time goes into compiling, which need not be thorough here.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    return os.environ | {"XLA_FLAGS": flags}


class _Server:
    """The process that commands are forked from: it has imported the libraries."""

    def __init__(self):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server"], cwd=ROOT, env=environment(), **pipes
        )
        self._lock = threading.Lock()
        atexit.register(self._process.kill)

    def ask(self, **request):
        with self._lock:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())


@functools.cache
def _server():
    return _Server()


class Command:
    """A running command, used as a `subprocess.Popen` is: the fork server is its parent.

    `variables` are those of its environment; with `terminated` it gets SIGTERM when it would parse its flags, with
    `group` it is the first of its own. It is killed after some `seconds`, as one that hangs.
    """

    def __init__(self, *argv, stdout, stderr, devices=1, seconds=600, terminated=False, group=False, **variables):
        self.args = list(map(str, argv))
        files = {"stdout": str(stdout), "stderr": str(stderr)}
        options = {"seconds": seconds, "terminated": terminated, "group": group}
        options["environment"] = environment(devices) | variables
        self.pid, self.returncode = _server().ask(argv=self.args, **files, **options), None

    def poll(self):
        if self.returncode is None:
            self.returncode = _server().ask(poll=self.pid)
        return self.returncode

    def wait(self):
        if self.returncode is None:
            self.returncode = _server().ask(wait=self.pid)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self):
        """What it prints until it ends, the first time, and None, as there is no pipe for errors alone."""
        printed = ""
        if not self.stdout.closed:
            with self.stdout:
                printed = self.stdout.read()
        self.wait()
        return printed, None


def run(module, *arguments, **options):
    """The finished process of a command; `options` are those of `Command`."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name for name in ("stdout", "stderr")}
        command = Command(module, *arguments, **paths, **options)
        return subprocess.CompletedProcess(command.args, command.wait(), *(path.read_text() for path in paths.values()))


def run_fresh(module, *arguments, devices=1):
    """The finished process of a command in an interpreter of its own."""
    command = [sys.executable, "-m", "tests.tiny", module, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=600)


def start(module, *arguments, seconds=3600, **options):
    """The running command, with a pipe for all that it prints."""
    with tempfile.TemporaryDirectory() as folder:
        os.mkfifo(pipe := f"{folder}/printed")
        command = Command(module, *arguments, stdout=pipe, stderr=pipe, seconds=seconds, **options)
        command.stdout = os.fdopen(os.open(pipe, os.O_RDONLY))  # opens once the command has opened it too
    return command


def train_arguments(dataset, workdir):
    return ["--config=demo", f"--workdir={workdir}", f"--config.data.path={dataset}", *SMALL]


def assert_refused(result, *words):
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr + result.stdout
    assert len([line for line in result.stderr.splitlines() if line.startswith("error: ")]) == 1, result.stderr
    for word in words:
        assert word in result.stderr
