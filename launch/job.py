"""One run as a job of submitit, which is what says in the run's folder how it goes."""

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import submitit

from fume_jax.runtime.errors import RUN_AGAIN
from launch import status

# How long a job that was told to end waits for Slurm to end it.
_PATIENCE_SECONDS = 600


class TrainingJob:
    """Runs the command of one run, its output in `log.txt`, and writes `status.json`; the first task of the job does.

    What ends the job asks the command to save first: SIGTERM, and the signal upon which submitit calls `checkpoint` and
    puts the job back into the queue.
    """

    def __init__(self, command: Sequence[str], workdir: Path):
        self._command, self._workdir = list(command), workdir
        self._process = self._started = None
        self._terminated = False

    def __call__(self) -> int:
        environment = submitit.JobEnvironment()
        signal.signal(signal.SIGTERM, self._terminate)
        if environment.global_rank == 0:
            self._started = status.started(self._workdir, environment.job_id)
            began = f"{time.strftime('%F %T')}, job {environment.job_id} on {socket.gethostname()}"
            with open(self._workdir / status.LOG, "a") as log:
                for line in (began, shlex.join(self._command)):
                    print(f"{status.HEADER}{line}", file=log, flush=True)
                self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        else:  # whose output, if any, submitit keeps
            self._process = subprocess.Popen(self._command)
        code = self._wait()
        if self._terminated and code == RUN_AGAIN and environment.cluster == "slurm":
            # Slurm puts what it preempts back into the queue, unless it has ended by then.
            time.sleep(_PATIENCE_SECONDS)
        return code

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """Called by submitit before it puts the job back into the queue: returns once the run is saved.

        None, for a run that has ended otherwise, leaves it out of the queue.
        """
        if self._process is not None:
            self._tell()
            code = self._wait()
            if code >= 0 and code != RUN_AGAIN:
                return None
        return submitit.helpers.DelayedSubmission(TrainingJob(self._command, self._workdir))

    def _terminate(self, *_):
        # Once: on its way out the command no longer expects it.
        if self._process is not None and not self._terminated:
            self._terminated = True
            self._tell()

    def _tell(self):
        # Not Popen.terminate(), which would reap a command that has just ended before `_wait` does.
        os.kill(self._process.pid, signal.SIGTERM)

    def _wait(self):
        """Exit code of the command, negative the signal that killed it."""
        # Not Popen.wait(), which holds a lock that `checkpoint`, called in the middle of it, would wait for for ever.
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if self._started is not None:
            status.ended(self._workdir, self._started, code)
        return code
