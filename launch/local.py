"""Runs on this machine, some at once, by submitit's local executor."""

import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import submitit

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.preemption import StopRequest
from launch import status, table
from launch.job import TrainingJob
from launch.plan import Run

_POLL_SECONDS = 0.5
_CLOCK_SECONDS = 10  # that the clock may be set forth or back
_NO_LIMIT = 10 * 365 * 24 * 60  # minutes; submitit's default is two


@dataclasses.dataclass(frozen=True)
class Local:
    """Starts a run as another ends, and waits for all.

    Attributes:
      workdir: folder of the sweep.
      slots: the GPUs of each of the runs that are trained at once; empty where there are none.
    """

    workdir: Path
    slots: Sequence[Sequence[int]]

    @property
    def devices(self) -> int:
        """That share the batch of a run."""
        return max(1, len(self.slots[0]))

    def preview(self, runs: Sequence[Run]) -> str:
        """The commands."""
        at_once = f"# {len(runs)} runs, {len(self.slots)} at once" + f", GPUs {self.slots}" * bool(self.slots[0])
        return "\n".join([at_once, *(shlex.join(self._command(run, self.slots[0])) for run in runs)])

    def launch(self, runs: Sequence[Run], running: Sequence[str], stop: StopRequest) -> None:
        """Runs until all have ended, or until a stop is requested and those that are training have saved.

        Args:
          runs: to do.
          running: names of others, which an earlier command left; they are waited for, too.
          stop: ends the runs, which go on with the next start.
        """
        waiting, told = list(runs), False
        going = {name: job for name in running if (job := status.read_job(self.workdir / name)).backend == "local"}
        while True:
            for name, job in list(going.items()):
                now = status.state(self.workdir / name, states([job]))
                if now != status.RUNNING:
                    del going[name]
                    print(f"{name}: {now}  {table.summary(self.workdir / name)}".rstrip(), flush=True)
            if stop.requested:
                if not told:
                    print(f"stopping; {len(going)} run(s) save first", flush=True)
                    told = True
                for job in going.values():
                    # Again and again, for a job that is only just starting does not hear it.
                    _terminate(job)
            else:
                for slot in free_slots(self.slots, [job.gpus for job in going.values()])[: len(waiting)]:
                    run = waiting.pop(0)
                    going[run.name] = self._submit(run, slot)
                    print(f"{run.name}: started, {len(waiting)} waiting", flush=True)
            if not going and (stop.requested or not waiting):
                return
            time.sleep(_POLL_SECONDS)

    def _submit(self, run, gpus):
        folder = self.workdir / run.name
        executor = submitit.LocalExecutor(self.workdir / ".submitit")
        executor.update_parameters(timeout_min=_NO_LIMIT, gpus_per_node=len(gpus), visible_gpus=tuple(gpus))
        with _deaf_to_ctrl_c():
            job = executor.submit(TrainingJob(self._command(run, gpus), folder))
        created = psutil.Process(int(job.job_id)).create_time()
        submitted = status.Job("local", job.job_id, tuple(gpus), created, socket.gethostname())
        status.write_job(folder, submitted)
        return submitted

    def _command(self, run, gpus):
        # Though the sweep may itself be a task of Slurm, this run is no part of one.
        return [sys.executable, *run.arguments(self.workdir / run.name, "gpu" if gpus else None), "--num_processes=1"]


def states(jobs: Sequence[status.Job]) -> dict[status.Job, str]:
    """Whether the processes of jobs live; None for those of another machine with the same disk."""
    here = socket.gethostname()
    said = {job: status.RUNNING if _controller(job) else status.STOPPED for job in jobs if job.host == here}
    return dict.fromkeys(jobs) | said


def free_slots(slots: Sequence[Sequence[int]], busy: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """The slots that can be given away.

    Args:
      slots: GPUs of each slot.
      busy: GPUs of each run that is being trained, which an earlier start may have divided otherwise.
    """
    taken = {gpu for gpus in busy for gpu in gpus}
    return [slot for slot in slots if not taken & set(slot)][: max(0, len(slots) - len(busy))]


def divide_gpus(gpus: Sequence[int], parallel: int | None) -> list[tuple[int, ...]]:
    """The GPUs of each of the runs that are trained at once, equally many.

    Args:
      gpus: that there are.
      parallel: how many runs; None is one for each GPU, or one where there is none.

    Raises:
      UserError: if there are fewer GPUs than runs.
    """
    parallel = parallel or max(1, len(gpus))
    if 0 < len(gpus) < parallel:
        raise UserError(f"--parallel is {parallel}; expected at most {len(gpus)}, a GPU for each run.")
    each = len(gpus) // parallel
    return [tuple(gpus[i * each : (i + 1) * each]) for i in range(parallel)]


def visible_gpus(count: int | None) -> list[int]:
    """The GPUs to divide: the first `count`, or all, of those that CUDA_VISIBLE_DEVICES or nvidia-smi lists.

    Raises:
      UserError: if there are fewer.
    """
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is None:
        try:
            query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
            listed = ",".join(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split())
        except (FileNotFoundError, subprocess.CalledProcessError):
            listed = ""
    names = [name for name in listed.split(",") if name]
    if not all(name.isdigit() for name in names):
        raise UserError(f"CUDA_VISIBLE_DEVICES is {listed!r}; expected numbers, such as 0,1.")
    if count is not None and count > len(names):
        raise UserError(f"--gpus is {count}; this machine shows {len(names)}.")
    return [int(name) for name in names][:count]


def _controller(job):
    """The process that submitit started for the job, unless it has ended; its number may be another's by now."""
    try:
        process = psutil.Process(int(job.id))
        same = abs(process.create_time() - job.created) < _CLOCK_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _terminate(job):
    controller = _controller(job)
    if controller is not None:
        controller.terminate()  # which it passes on


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started inside never hears Ctrl-C, at which submitit would kill a job before its run is saved.

    Nor that the terminal is closed: the runs go on.
    """
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
