"""Backend that runs commands on TPUs and GPUs of a cloud: managed jobs of SkyPilot, which recovers preempted ones."""

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
from launch.command import Command

# Folder of what comes from the bucket: copies of some folders, and the mounted bucket, laid out as a checkout is.
_FUME = "/fume"
_BUCKET = f"{_FUME}/bucket"
_PYTHON = "~/fume/bin/python"


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Writes a task for each run, launches the tasks and does not wait."""

    workdir: Path  # holds the folders of the runs, with their states
    name: str  # begins the names of the jobs; the folder of this name in `runs/` of the bucket receives the runs
    bucket: str  # address of the bucket, such as gs://NAME
    accelerator: str  # SkyPilot's name of the accelerator, such as tpu-v5litepod-16 or H100:8
    infra: str | None  # cloud, region and zone, such as gcp/us-west4; None chooses the cheapest
    spot: bool  # whether machines are cheaper and may be taken away

    def __post_init__(self):
        if "://" not in self.bucket:
            raise UserError(f"--bucket is {self.bucket}; expected an address such as gs://{self.bucket}.")

    @property
    def devices(self) -> int:
        """Number of devices that share the batch of a run, as far as the name of the accelerator tells it."""
        count = re.search(r"(?:litepod-|v6e-|:)(\d+)$", self.accelerator)
        return int(count[1]) if count else 1

    def preview(self, runs: Sequence[Command]) -> str:
        """Writes the tasks, has SkyPilot check them, and returns the first one and the commands of all."""
        for run in runs:
            self._load(run)
        commands = [f"{self._path(run)}: {self.task(run)['run'].strip()}" for run in runs]
        return "\n".join([f"{self._path(runs[0])}:\n", self._path(runs[0]).read_text(), *commands])

    def launch(self, runs: Sequence[Command], running: Sequence[str], stop: StopRequest) -> None:
        """Launches the runs as managed jobs, until a stop is requested."""
        del running
        for run in runs:
            if stop.requested:
                return
            task = self._load(run)
            try:
                ids, _ = sky.get(sky.jobs.launch(task, name=task.name))
            except Exception as error:  # each cloud raises errors of its own types
                raise UserError(f"SkyPilot did not launch {run.name}: {error}\nSee `sky check`.") from error
            status.write_job(self.workdir / run.name, status.Job("cloud", str(ids[0])))
            print(f"{run.name}: submitted as managed job {ids[0]}", flush=True)

    def task(self, run: Command) -> dict[str, Any]:
        """Returns the task of a run, as in SkyPilot's YAML files."""
        platform, extra = ("tpu", "tpu") if self.accelerator.startswith("tpu") else ("gpu", "cuda12")
        arguments = run.arguments(f"{_BUCKET}/runs/{self.name}/{run.name}", platform)
        needs = run.needs
        # Google's name of the runtime of a v5e; SkyPilot would choose that of a v5p.
        boots = {"accelerator_args": {"runtime_version": "v2-alpha-tpuv5-lite"}}
        return {
            "name": f"{self.name}-{run.name}",
            "workdir": ".",
            "resources": {
                **({"infra": self.infra} if self.infra else {}),
                "accelerators": self.accelerator,
                **(boots if self.accelerator.startswith("tpu-v5lite") else {}),
                "use_spot": self.spot,
                "job_recovery": {"strategy": "EAGER_NEXT_REGION", "recover_on_exit_codes": [RUN_AGAIN]},
            },
            "file_mounts": {
                # A recovered job goes on from what is in the mounted bucket.
                _BUCKET: {"source": self.bucket, "mode": "MOUNT"},
                **{f"{_FUME}/{folder}": f"{self.bucket}/{folder}" for folder in needs.copied},
            },
            "setup": "set -e\n"
            + "".join(f"ln -sfn {_FUME}/{folder} {folder}\n" for folder in needs.copied)
            + "".join(f"mkdir -p {_BUCKET}/{folder}\nln -sfn {_BUCKET}/{folder} {folder}\n" for folder in needs.mounted)
            + "".join(self._expect(path) for path in needs.files)
            + "pip install -q uv\n"
            "uv venv -q --python 3.11 --allow-existing ~/fume\n"
            f"uv pip install -q --python {_PYTHON} -e '.[{','.join((extra, *needs.extras))}]'\n",
            # Every host of a pod runs this; JAX finds the others.
            "run": f"{_PYTHON} {shlex.join(arguments)}\n",
        }

    def _expect(self, path):
        """Returns the command that ends a setup before it takes minutes, if the bucket lacks a file."""
        message = shlex.quote(f"error: there is no {self.bucket}/{path}")
        return f"test -e {shlex.quote(path)} || {{ echo {message}; exit 1; }}\n"

    def _path(self, run):
        return self.workdir / "tasks" / f"{run.name}.yaml"

    def _load(self, run):
        """Writes the task and lets SkyPilot read it."""
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
    """Writes commands of several lines as blocks."""


def _represent_text(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
# States of managed jobs that SkyPilot reports; any other is a failure.
_STATES = {
    **dict.fromkeys(("PENDING", "SUBMITTED", "STARTING"), status.QUEUED),
    **dict.fromkeys(("RUNNING", "WINDING_DOWN", "RECOVERING", "CANCELLING"), status.RUNNING),
    "SUCCEEDED": status.DONE,
    "CANCELLED": status.STOPPED,
}


def states(jobs: Sequence[status.Job]) -> dict[status.Job, str | None]:
    """Returns the states of jobs that SkyPilot reports; None for unknown ones, which another controller may know."""
    try:
        records, *_ = sky.get(sky.jobs.queue_v2(refresh=True, job_ids=[int(job.id) for job in jobs]))
    except Exception as error:  # each cloud raises errors of its own types
        raise UserError(f"SkyPilot does not report the states of the runs: {error}") from error
    found = {str(record["job_id"]): _STATES.get(record["status"].value, status.FAILED) for record in records}
    return {job: found.get(job.id) for job in jobs}
