"""Runs on TPUs and GPUs of a cloud, as managed jobs of SkyPilot, which recovers them when they are preempted."""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sky
import yaml

from fume_jax.runtime.errors import RUN_AGAIN, UserError
from fume_jax.runtime.preemption import StopRequest
from launch import status
from launch.plan import Run

# Where the machine has the bucket, which holds data/ and runs/ as a checkout does.
_BUCKET = "/fume/bucket"
_DATA = "/fume/data"
_PYTHON = "~/fume/bin/python"


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Writes a task for each run and launches them; does not wait.

    Attributes:
      workdir: folder of the sweep, here and in the bucket's `runs/`.
      bucket: such as gs://NAME.
      accelerator: in SkyPilot's words, such as tpu-v5litepod-16 or H100:8.
      infra: cloud, region and zone, such as gcp/us-west4; None is wherever it is cheapest.
      spot: cheaper machines that may be taken away.
    """

    workdir: Path
    bucket: str
    accelerator: str
    infra: str | None
    spot: bool

    def __post_init__(self):
        if "://" not in self.bucket:
            raise UserError(f"--bucket is {self.bucket}; expected an address such as gs://{self.bucket}.")

    @property
    def devices(self) -> int:
        """That share the batch of a run: what the accelerator's name ends with, as far as that counts them."""
        count = re.search(r"(?:litepod-|v6e-|:)(\d+)$", self.accelerator)
        return int(count[1]) if count else 1

    def preview(self, runs: Sequence[Run]) -> str:
        """Writes the tasks, has SkyPilot check them, and returns where they are and what they run."""
        for run in runs:
            self._load(run)
        commands = [f"{self._path(run)}: {self.task(run)['run'].strip()}" for run in runs]
        return "\n".join([f"{self._path(runs[0])}:\n", self._path(runs[0]).read_text(), *commands])

    def launch(self, runs: Sequence[Run], running: Sequence[str], stop: StopRequest) -> None:
        """Launches the runs as managed jobs, until a stop is requested."""
        del running
        for run in runs:
            if stop.requested:
                return
            task = self._load(run)
            try:
                ids, _ = sky.get(sky.jobs.launch(task, name=task.name))
            except Exception as error:  # of many types, by cloud
                raise UserError(
                    f"SkyPilot did not launch {run.name}: {error}\n`sky check` says what it has."
                ) from error
            status.write_job(self.workdir / run.name, status.Job("cloud", str(ids[0])))
            print(f"{run.name}: submitted as managed job {ids[0]}", flush=True)

    def task(self, run: Run) -> dict[str, Any]:
        """The task of a run, as YAML has it."""
        platform, extra = ("tpu", "tpu") if self.accelerator.startswith("tpu") else ("gpu", "cuda12")
        arguments = run.arguments(f"{_BUCKET}/runs/{self.workdir.name}/{run.name}", platform)
        # Google's name of what a v5e boots, which SkyPilot takes for a v5p.
        boots = {"accelerator_args": {"runtime_version": "v2-alpha-tpuv5-lite"}}
        recovery = {"strategy": "EAGER_NEXT_REGION", "recover_on_exit_codes": [RUN_AGAIN]}
        return {
            "name": f"{self.workdir.name}-{run.name}",
            "workdir": ".",
            "resources": {
                **({"infra": self.infra} if self.infra else {}),
                "accelerators": self.accelerator,
                **(boots if self.accelerator.startswith("tpu-v5lite") else {}),
                "use_spot": self.spot,
                "job_recovery": recovery,
            },
            "file_mounts": {
                # Checkpoints, which a job that was recovered goes on from.
                _BUCKET: {"source": self.bucket, "mode": "MOUNT"},
                # The dataset, copied: it is read at random.
                _DATA: f"{self.bucket}/data",
            },
            "setup": "set -e\n"
            f"ln -sfn {_DATA} data\n"
            f"ln -sfn {_BUCKET}/runs runs\n"
            "pip install -q uv\n"
            "uv venv -q --python 3.11 --allow-existing ~/fume\n"
            f"uv pip install -q --python {_PYTHON} -e '.[{extra}]'\n",
            # On every host of a pod; JAX finds the others.
            "run": f"{_PYTHON} {shlex.join(arguments)}\n",
        }

    def _path(self, run):
        return self.workdir / "tasks" / f"{run.name}.yaml"

    def _load(self, run):
        """Writes the task and reads it as SkyPilot does."""
        path = self._path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.dump(self.task(run), Dumper=_Dumper, sort_keys=False, width=1000))
        try:
            task = sky.Task.from_yaml(str(path))
            task.validate_name()
        except ValueError as error:
            raise UserError(f"SkyPilot does not take {path}: {error}") from error
        return task


class _Dumper(yaml.SafeDumper):
    """Writes commands as they are typed."""

    def represent_str(self, text):
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def states(jobs: Sequence[status.Job]) -> dict[status.Job, str | None]:
    """What SkyPilot says of managed jobs; None of those that it does not know."""
    try:
        records, *_ = sky.get(sky.jobs.queue_v2(refresh=True, job_ids=[int(job.id) for job in jobs]))
    except Exception as error:  # of many types, by cloud
        raise UserError(f"SkyPilot does not tell how the runs go: {error}") from error
    found = {str(record["job_id"]): record["status"].value for record in records}
    return {job: _state(found.get(job.id)) for job in jobs}


def _state(said):
    if said in ("PENDING", "SUBMITTED", "STARTING"):
        return status.QUEUED
    if said in ("RUNNING", "WINDING_DOWN", "RECOVERING", "CANCELLING"):
        return status.RUNNING
    if said == "SUCCEEDED":
        return status.DONE
    if said is None:  # Another controller may have known it: better asked for than trained, and paid for, twice.
        return None
    return status.STOPPED if said == "CANCELLED" else status.FAILED
