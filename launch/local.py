"""Backend that runs commands on this machine, several at once, by submitit's local executor."""

import contextlib
import dataclasses
import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import submitit

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.preemption import StopRequest
from launch import status, table
from launch.command import Command
from launch.job import CommandJob

_POLL_SECONDS = 0.5
_CLOCK_SECONDS = 10  # largest change of the clock between two starts
_NO_GPU = ("", "-1", "NoDevFiles")
_NO_LIMIT = 10 * 365 * 24 * 60  # minutes; submitit's default is two


@dataclasses.dataclass(frozen=True)
class Local:
    """Starts a run whenever another one ends, and waits for all."""

    workdir: Path  # holds the folders of the runs
    slots: Sequence[Sequence[int]]  # GPUs of each of the runs at once; empty without GPUs

    @property
    def devices(self) -> int:
        """Number of devices that share the batch of a run."""
        return max(1, len(self.slots[0]))

    def preview(self, runs: Sequence[Command]) -> str:
        """Returns the commands of the runs."""
        at_once = f"# {len(runs)} runs, {len(self.slots)} at once" + f", GPUs {self.slots}" * bool(self.slots[0])
        return "\n".join([at_once, *(shlex.join(self._command(run, self.slots[0])) for run in runs)])

    def launch(self, runs: Sequence[Command], running: Sequence[str], stop: StopRequest) -> None:
        """Starts the runs, and waits for them and for `running` ones, which an earlier command started.

        After a stop request it starts no more runs, and waits until those that it has started have saved.
        """
        waiting, stopping = list(runs), False
        jobs = {name: job for name in running if (job := status.read_job(self.workdir / name)).backend == "local"}
        while True:
            for name, job in list(jobs.items()):
                state = status.state(self.workdir / name, states([job]))
                if state != status.RUNNING:
                    del jobs[name]
                    print(f"{name}: {state}  {table.summary(self.workdir / name)}".rstrip(), flush=True)
            if stop.requested:
                if not stopping:
                    print(f"stopping; {len(jobs)} run(s) save first", flush=True)
                    stopping = True
                for job in jobs.values():
                    # The process passes SIGTERM on; one that is just starting misses it, so it is repeated.
                    if (process := _process(job)) is not None:
                        process.terminate()
            else:
                for slot in free_slots(self.slots, [job.gpus for job in jobs.values()])[: len(waiting)]:
                    run = waiting.pop(0)
                    jobs[run.name] = self._submit(run, slot)
                    print(f"{run.name}: started, {len(waiting)} waiting", flush=True)
            if not jobs and (stop.requested or not waiting):
                return
            time.sleep(_POLL_SECONDS)

    def _submit(self, run, gpus):
        folder = self.workdir / run.name
        executor = submitit.LocalExecutor(self.workdir / ".submitit")
        executor.update_parameters(timeout_min=_NO_LIMIT, gpus_per_node=len(gpus), visible_gpus=tuple(gpus))
        with _ignore_terminal():
            submitted = executor.submit(CommandJob(self._command(run, gpus), folder))
        created = psutil.Process(int(submitted.job_id)).create_time()
        job = status.Job("local", submitted.job_id, tuple(gpus), created, socket.gethostname())
        status.write_job(folder, job)
        return job

    def _command(self, run, gpus):
        # The launcher may itself be a task of Slurm, but the run is not a part of it.
        return [sys.executable, *run.arguments(self.workdir / run.name, "gpu" if gpus else None, alone=True)]


def states(jobs: Sequence[status.Job]) -> dict[status.Job, str | None]:
    """Returns the states of jobs by their processes; None for jobs of another machine with the same disk."""
    host = socket.gethostname()
    found = {job: status.RUNNING if _process(job) else status.STOPPED for job in jobs if job.host == host}
    return dict.fromkeys(jobs) | found


def free_slots(slots: Sequence[Sequence[int]], busy: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Returns the slots that may start a run; `busy` has the GPUs of each run that goes on, maybe in other slots."""
    taken = {gpu for gpus in busy for gpu in gpus}
    return [slot for slot in slots if not taken & set(slot)][: max(0, len(slots) - len(busy))]


def divide_gpus(gpus: Sequence[int], parallel: int | None) -> list[tuple[int, ...]]:
    """Divides GPUs equally among runs at once, by default one for each GPU; raises UserError if there are too few."""
    parallel = parallel or max(1, len(gpus))
    if 0 < len(gpus) < parallel:
        raise UserError(f"--parallel is {parallel}; expected at most {len(gpus)}, a GPU for each run.")
    each = len(gpus) // parallel
    return [tuple(gpus[i * each : (i + 1) * each]) for i in range(parallel)]


def visible_gpus(count: int | None) -> list[int]:
    """Returns `count` GPUs, or all, that CUDA_VISIBLE_DEVICES or nvidia-smi lists; raises UserError if too few."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        try:
            query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
            listed = ",".join(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split())
        except (FileNotFoundError, subprocess.CalledProcessError):
            listed = ""
    # As CUDA reads it: a number that no GPU has hides that one and all after it.
    names = list(itertools.takewhile(lambda name: name not in _NO_GPU, map(str.strip, listed.split(","))))
    if not all(name.isdigit() for name in names):
        raise UserError(f"CUDA_VISIBLE_DEVICES is {listed!r}; expected numbers, such as 0,1.")
    if count is not None and count > len(names):
        raise UserError(f"--gpus is {count}; this machine shows {len(names)}.")
    return [int(name) for name in names][:count]


def _process(job):
    """Returns the process that submitit started for a job, or None if it has ended."""
    try:
        process = psutil.Process(int(job.id))
        # Another process may have the same number by now.
        same = abs(process.create_time() - job.created) < _CLOCK_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


@contextlib.contextmanager
def _ignore_terminal() -> Iterator[None]:
    """Makes jobs that start inside ignore Ctrl-C, at which submitit would kill them, and a closed terminal.

    This process receives these signals at the end.
    """
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)
