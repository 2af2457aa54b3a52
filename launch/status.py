"""State of a command, in two small files of its folder.

The command that launches writes `submitted.json`, and the job writes `status.json`, so neither overwrites the other's.
"""

import dataclasses
import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fume_jax.runtime import errors
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import read_json, replace_text

# States of a command, here called a run. The next start resumes one that failed, or that was stopped or killed.
QUEUED, RUNNING, DONE, FAILED, STOPPED = "queued", "running", "done", "failed", "stopped"
RESUMED = (FAILED, STOPPED)
DAMAGED = "damaged"  # one of the two files cannot be read
LOG = "log.txt"
HEADER = "# "  # begins the lines that a job writes to the log before its command starts


@dataclasses.dataclass(frozen=True)
class Job:
    """Job that was submitted to a backend. The last three fields describe a local job."""

    backend: str
    id: str
    gpus: Sequence[int] = ()  # GPUs of this machine that the job uses
    created: float = 0.0  # creation time of its process, seconds since 1970
    host: str = ""


@dataclasses.dataclass(frozen=True)
class Status:
    """State of a run as its last job wrote it; times are in seconds since 1970."""

    job: str
    state: str
    host: str
    started: float
    seconds: float = 0.0  # duration of earlier jobs of the run
    ended: float | None = None
    exit_code: int | None = None  # a negative one is the signal that killed the command

    @property
    def total_seconds(self) -> float:
        """Duration of all jobs of the run so far."""
        return self.seconds + (self.ended or time.time()) - self.started


def write_job(workdir: Path, job: Job) -> None:
    """Writes the job that was submitted for a run."""
    _write(workdir / "submitted.json", job)


def read_job(workdir: Path) -> Job | None:
    """Returns the job that was submitted last, or None."""
    return _read(workdir / "submitted.json", Job)


def forget_job(workdir: Path) -> None:
    """Makes the run one that was never submitted, which the next start runs."""
    (workdir / "submitted.json").unlink(missing_ok=True)


def read_status(workdir: Path) -> Status | None:
    """Returns the status that the last job wrote, or None if no job has begun."""
    return _read(workdir / "status.json", Status)


def started(workdir: Path, job: str) -> Status:
    """Writes, and returns, the status of a job that begins."""
    before = read_status(workdir)
    seconds = before.total_seconds if before and before.ended else 0.0
    status = Status(job, RUNNING, socket.gethostname(), time.time(), seconds)
    _write(workdir / "status.json", status)
    return status


def ended(workdir: Path, status: Status, exit_code: int) -> None:
    """Writes the status of a job whose command has ended."""
    state = {errors.DONE: DONE, errors.RUN_AGAIN: STOPPED}.get(exit_code, STOPPED if exit_code < 0 else FAILED)
    _write(workdir / "status.json", dataclasses.replace(status, state=state, ended=time.time(), exit_code=exit_code))


def state(workdir: Path, job_states: Mapping[Job, str | None]) -> str:
    """Returns the state of a run from its files and from the states of jobs that the backends report.

    A backend reports `stopped` if a job is gone, `done` or `failed` if it knows how the job ended, and None if it does
    not know the job.
    """
    job, status = read_job(workdir), read_status(workdir)
    if job is None:
        return QUEUED
    own = status.state if status and status.job == job.id else None
    return own if own in (DONE, FAILED) else job_states[job] or own or QUEUED


def log_tail(workdir: Path, lines: int) -> list[str]:
    """Returns the last lines that the last job wrote to the log of a run."""
    path = workdir / LOG
    text = path.read_text(errors="replace").splitlines() if path.exists() else []
    begin = max((i for i, line in enumerate(text) if line.startswith(HEADER)), default=-1) + 1
    return text[begin:][-lines:]


def _write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(dataclasses.asdict(value), indent=1) + "\n")


def _read(path, kind):
    if not path.exists():
        return None
    values = read_json(path)
    try:
        return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
    except TypeError as error:
        raise UserError(f"{path} is damaged: {error}.") from error
