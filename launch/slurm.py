"""Backend that runs commands on a Slurm cluster, as one array job, by submitit."""

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import SlurmJob, _make_sbatch_string

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.preemption import StopRequest
from launch import status
from launch.command import Command
from launch.job import CommandJob

_SECONDS_TO_SAVE = 180  # far more than a run needs to save a checkpoint and end
_TIMEOUTS = 1000  # number of times that a run may use up its time and be requeued


@dataclasses.dataclass(frozen=True)
class Slurm:
    """Submits the runs and does not wait."""

    workdir: Path  # holds the folders of the runs, on a disk that all nodes share
    nodes: int  # nodes of each run
    gpus: int  # GPUs of each node; 0 leaves it to CPUs
    minutes: int  # time after which a run saves and is requeued
    parallel: int | None  # number of runs at once; None leaves it to the cluster
    options: Mapping[str, Any]  # further options of sbatch, by submitit's names for them

    def __post_init__(self):
        known = submitit.SlurmExecutor._valid_parameters()
        if self.options.keys() - known:
            unknown = ", ".join(sorted(self.options.keys() - known))
            raise UserError(f"--slurm has {unknown}; expected some of {', '.join(sorted(known))}.")

    @property
    def devices(self) -> int:
        """Number of devices that share the batch of a run."""
        return self.nodes * max(1, self.gpus)

    @property
    def parameters(self) -> dict[str, Any]:
        """Options of the array job, by submitit's names for them."""
        # On Slurm `jax.distributed.initialize` expects a process for each GPU, numbered alike on a node.
        parameters = {"gpus_per_node": self.gpus} if self.gpus else {}
        parameters |= {"nodes": self.nodes, "ntasks_per_node": max(1, self.gpus), "time": self.minutes}
        parameters |= {"array_parallelism": self.parallel} if self.parallel else {}
        parameters |= {"job_name": self.workdir.name, "signal_delay_s": _SECONDS_TO_SAVE}
        return parameters | {"additional_parameters": {"requeue": True}} | self.options

    def preview(self, runs: Sequence[Command]) -> str:
        """Returns the script that submitit would give to sbatch, and the command of each of its tasks."""
        submit = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {self._folder.absolute()}"
        count = {"map_count": len(runs)} if len(runs) > 1 else {}
        script = _make_sbatch_string(submit, self._folder, **self.parameters, **count)
        return "\n".join([script, *(f"# {i}: {shlex.join(self._command(run))}" for i, run in enumerate(runs))])

    def launch(self, runs: Sequence[Command], running: Sequence[str], stop: StopRequest) -> None:
        """Submits the runs as one array job."""
        del running, stop  # only a backend that waits needs them
        if not runs:
            return
        try:
            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=_TIMEOUTS)
        except RuntimeError as error:
            raise UserError(f"{error} --backend=slurm starts from a node that has sbatch and srun.") from error
        executor.update_parameters(**self.parameters)
        try:
            jobs = executor.submit_array([CommandJob(self._command(run), self.workdir / run.name) for run in runs])
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"sbatch refused: {error}") from error
        for run, job in zip(runs, jobs, strict=True):
            status.write_job(self.workdir / run.name, status.Job("slurm", job.job_id))
            print(f"{run.name}: submitted as {job.job_id}")

    @property
    def _folder(self):
        return self.workdir / ".submitit"

    def _command(self, run):
        return [sys.executable, *run.arguments(self.workdir / run.name, "gpu" if self.gpus else None)]


def states(jobs: Sequence[status.Job]) -> dict[status.Job, str | None]:
    """Returns the states of jobs that sacct reports, which runs once for all; None for jobs that it does not know."""
    slurm_jobs = {job: SlurmJob(folder=".", job_id=job.id) for job in jobs}  # all exist before the first one asks
    return {job: _state(slurm_job) for job, slurm_job in slurm_jobs.items()}


def _state(slurm_job):
    state = slurm_job.state
    if state == "UNKNOWN":  # the cluster has no accounting, or the job was submitted just now
        return None
    if slurm_job.watcher.is_done(slurm_job.job_id, mode="cache"):
        return status.STOPPED
    return status.RUNNING if state in ("RUNNING", "COMPLETING") else status.QUEUED
