"""How a run goes, in two small files of its folder: what was submitted, and what its job says.

`submitted.json` is written by the command that launches, `status.json` by the job, so that neither undoes the other's.
"""

import dataclasses
import json
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fume_jax.runtime.errors import DONE as EXIT_DONE
from fume_jax.runtime.errors import RUN_AGAIN
from fume_jax.runtime.files import replace_text

# States of a run. One that was stopped or killed from outside goes on with the next start of the sweep, and so does one
# that failed.
QUEUED, RUNNING, DONE, FAILED, STOPPED = "queued", "running", "done", "failed", "stopped"
LOG = "log.txt"
HEADER = "# "  # begins the lines that a job writes there before its command does


@dataclasses.dataclass(frozen=True)
class Job:
    """What was submitted to an engine."""

    backend: str
    id: str
    gpus: Sequence[int] = ()  # of this machine, that a local job was given
    created: float = 0.0  # when the process of a local job was, seconds since 1970
    host: str = ""  # of a local job


@dataclasses.dataclass(frozen=True)
class Status:
    """What a job says of its run."""

    job: str
    state: str
    host: str
    started: float  # seconds since 1970, as is `ended`
    seconds: float = 0.0  # that earlier jobs of the run took
    ended: float | None = None
    exit_code: int | None = None  # negative: the signal that killed the command

    @property
    def total_seconds(self) -> float:
        """How long the run took so far."""
        return self.seconds + (self.ended or time.time()) - self.started


def write_job(workdir: Path, job: Job) -> None:
    """Takes note of what was submitted."""
    _write(workdir / "submitted.json", job)


def read_job(workdir: Path) -> Job | None:
    """What was submitted last; None if nothing was."""
    return _read(workdir / "submitted.json", Job)


def read_status(workdir: Path) -> Status | None:
    """What the last job that began said; None if none did."""
    return _read(workdir / "status.json", Status)


def started(workdir: Path, job: str) -> Status:
    """Writes that a job has begun."""
    before = read_status(workdir)
    seconds = before.total_seconds if before and before.ended else 0.0
    status = Status(job, RUNNING, socket.gethostname(), time.time(), seconds)
    _write(workdir / "status.json", status)
    return status


def ended(workdir: Path, status: Status, exit_code: int) -> None:
    """Writes how a job has ended."""
    state = {EXIT_DONE: DONE, RUN_AGAIN: STOPPED}.get(exit_code, STOPPED if exit_code < 0 else FAILED)
    _write(workdir / "status.json", dataclasses.replace(status, state=state, ended=time.time(), exit_code=exit_code))


def state(workdir: Path, said: Mapping[Job, str | None]) -> str:
    """The state of a run.

    Args:
      workdir: folder of the run.
      said: what the engines say of jobs: queued or running; done or failed, where the engine knows; stopped, which
        means that the job is gone; None where the engine does not know the job.
    """
    job, status = read_job(workdir), read_status(workdir)
    if job is None:
        return QUEUED
    own = status.state if status and status.job == job.id else None
    if own in (DONE, FAILED):
        return own
    return own or QUEUED if said[job] is None else said[job]


def log_tail(workdir: Path, lines: int) -> list[str]:
    """The last lines that the last job wrote to a run's log."""
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
    values = json.loads(path.read_text())
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
