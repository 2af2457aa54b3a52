"""Job that runs one command under submitit, and writes its state into its folder."""

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

# Seconds that a terminated job waits for Slurm to end it.
_WAIT_FOR_SLURM = 600


class CommandJob:
    """Runs one command. The first task of the job writes `status.json`, and the command's output to a log.

    SIGTERM ends the job, and so does the signal upon which submitit calls `checkpoint` and requeues the job. Both ask
    the command to save first.
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
            with open(self._workdir / status.LOG, "a", errors="backslashreplace") as log:
                for line in (began, shlex.join(self._command)):
                    print(f"{status.HEADER}{line}", file=log, flush=True)
                self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        else:  # submitit keeps the output of the other tasks
            self._process = subprocess.Popen(self._command)
        code = self._wait()
        if self._terminated and code == RUN_AGAIN and environment.cluster == "slurm":
            # Slurm requeues a job that it preempts, unless the job has ended by then.
            time.sleep(_WAIT_FOR_SLURM)
        return code

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """Asks the command to save, and returns the job that submitit requeues; None if the command ended otherwise."""
        if self._process is not None:
            self._ask_to_save()
            code = self._wait()
            if code >= 0 and code != RUN_AGAIN:
                return None
        return submitit.helpers.DelayedSubmission(CommandJob(self._command, self._workdir))

    def _terminate(self, *_):
        # A second signal would end the command without saving.
        if self._process is not None and not self._terminated:
            self._terminated = True
            self._ask_to_save()

    def _ask_to_save(self):
        # Popen.terminate() would reap a command that has just ended, before `_wait` does.
        os.kill(self._process.pid, signal.SIGTERM)

    def _wait(self):
        """Returns the exit code of the command, or the negative signal that killed it."""
        # Popen.wait() holds a lock that `checkpoint`, called in the middle of it, would wait for forever.
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        code = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if self._started is not None:
            status.ended(self._workdir, self._started, code)
        return code
