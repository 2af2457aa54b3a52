"""Runs on a Slurm cluster, as one array job, by submitit."""

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
from launch.job import TrainingJob
from launch.plan import Run

# What an epoch's checkpoint and the way out take, with much to spare.
_SECONDS_TO_SAVE = 180
# How often a run may use up its time and go back into the queue.
_TIMEOUTS = 1000


@dataclasses.dataclass(frozen=True)
class Slurm:
    """Submits the runs and does not wait.

    Attributes:
      workdir: folder of the sweep, on a disk that all nodes share.
      nodes: of each run.
      gpus: of each node; 0 trains on CPUs.
      minutes: that a run may take before it saves and goes back into the queue.
      parallel: how many runs may be trained at once; None is as many as the cluster lets.
      options: further ones, by the names submitit has for those of sbatch.
    """

    workdir: Path
    nodes: int
    gpus: int
    minutes: int
    parallel: int | None
    options: Mapping[str, Any]

    def __post_init__(self):
        known = submitit.SlurmExecutor._valid_parameters()
        if self.options.keys() - known:
            unknown = ", ".join(sorted(self.options.keys() - known))
            raise UserError(f"--slurm has {unknown}; expected some of {', '.join(sorted(known))}.")

    @property
    def devices(self) -> int:
        """That share the batch of a run."""
        return self.nodes * max(1, self.gpus)

    @property
    def parameters(self) -> dict[str, Any]:
        """In submitit's words."""
        # On Slurm `jax.distributed.initialize` takes a process for each GPU, the one of the same number on its node.
        parameters = {"gpus_per_node": self.gpus} if self.gpus else {}
        parameters |= {"nodes": self.nodes, "ntasks_per_node": max(1, self.gpus), "time": self.minutes}
        parameters |= {"array_parallelism": self.parallel} if self.parallel else {}
        parameters |= {"job_name": self.workdir.name, "signal_delay_s": _SECONDS_TO_SAVE}
        return parameters | {"additional_parameters": {"requeue": True}} | self.options

    def preview(self, runs: Sequence[Run]) -> str:
        """The script that submitit would give to sbatch, and the command of each of its tasks."""
        submit = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {self._folder.absolute()}"
        count = {"map_count": len(runs)} if len(runs) > 1 else {}
        script = _make_sbatch_string(submit, self._folder, **self.parameters, **count)
        return "\n".join([script, *(f"# {i}: {shlex.join(self._command(run))}" for i, run in enumerate(runs))])

    def launch(self, runs: Sequence[Run], running: Sequence[str], stop: StopRequest) -> None:
        """Submits the runs."""
        del running, stop  # which are for those that wait
        if not runs:
            return
        try:
            executor = submitit.SlurmExecutor(self._folder, max_num_timeout=_TIMEOUTS)
        except RuntimeError as error:
            raise UserError(f"{error} --backend=slurm starts from a node that has sbatch and srun.") from error
        executor.update_parameters(**self.parameters)
        folders = [self.workdir / run.name for run in runs]
        try:
            jobs = executor.submit_array(
                [TrainingJob(self._command(run), folder) for run, folder in zip(runs, folders, strict=True)]
            )
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"sbatch refused: {error}") from error
        for run, folder, job in zip(runs, folders, jobs, strict=True):
            status.write_job(folder, status.Job("slurm", job.job_id))
            print(f"{run.name}: submitted as {job.job_id}")

    @property
    def _folder(self):
        return self.workdir / ".submitit"

    def _command(self, run):
        return [sys.executable, *run.arguments(self.workdir / run.name, "gpu" if self.gpus else None)]


def states(jobs: Sequence[status.Job]) -> dict[status.Job, str | None]:
    """What sacct says; it is asked once for all."""
    found = {job: SlurmJob(folder=".", job_id=job.id) for job in jobs}
    return {job: _state(slurm_job) for job, slurm_job in found.items()}


def _state(slurm_job):
    said = slurm_job.state
    if said == "UNKNOWN":  # without accounting, or just after the job was submitted
        return None
    if slurm_job.watcher.is_done(slurm_job.job_id, mode="cache"):
        return status.STOPPED
    return status.RUNNING if said in ("RUNNING", "COMPLETING") else status.QUEUED
