"""The table of a sweep: how every run goes and what it has reached."""

import json
import signal
from collections.abc import Mapping
from pathlib import Path

from fume_jax.evaluation.tables import aligned
from launch import status

METRICS = ("iou_gas", "mean_iou", "balanced_accuracy", "macro_f1")
_TAIL = 4  # lines of the log of a run that failed


def status_table(workdir: Path, states: Mapping[str, str]) -> str:
    """A line for each run, and below the last lines of the logs of those that failed.

    Args:
      workdir: folder of the sweep.
      states: by name of the run.
    """
    rows = [("run", "state", "epoch", "step", "scores of", *METRICS, "time")]
    notes = []
    for name, state in states.items():
        rows.append((name, state, *progress(workdir / name), *scores(workdir / name), _time(workdir / name)))
        notes += _notes(workdir / name, name, state)
    return "\n".join([aligned(rows, words=2), *notes])


def progress(workdir: Path) -> tuple[str, str]:
    """Epochs that were evaluated, of how many, and the step of the last checkpoint."""
    config, evaluated = _json(workdir / "config.json"), _json(workdir / "validation.json")
    # Checkpoints may have been left out where a run was copied from.
    steps = [path.name for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()] + list(evaluated)
    if not config or not steps:
        return "-", "-"
    epochs = config["train"]["epochs"]
    return f"{min(len(evaluated) * config['eval']['every_epochs'], epochs)}/{epochs}", str(max(map(int, steps)))


def scores(workdir: Path) -> tuple[str, ...]:
    """Which split, and `METRICS`: of the test split once the run is scored, until then the best validation so far."""
    final, validation = _json(workdir / "metrics.json"), _json(workdir / "validation.json")
    if final:
        return ("test", *(_number(final.get(f"test/{name}")) for name in METRICS))
    metric = _json(workdir / "config.json").get("checkpoint", {}).get("best_metric")
    scored = [values for values in validation.values() if values.get(metric) is not None]
    if not scored:
        return ("-",) * (1 + len(METRICS))
    best = max(scored, key=lambda values: values[metric])
    return ("val", *(_number(best.get(name)) for name in METRICS))


def summary(workdir: Path) -> str:
    """The scores of a run in one line."""
    split, *values = scores(workdir)
    known = [f"{name} {value}" for name, value in zip(METRICS, values, strict=True) if value != "-"]
    return f"{split}: {', '.join(known)}" if known else ""


def _notes(workdir, name, state):
    """What a line of the table cannot hold."""
    said, job = status.read_status(workdir), status.read_job(workdir)
    if state == status.STOPPED and said and (said.exit_code or 0) < 0 and said.exit_code != -signal.SIGTERM:
        return [f"\n{name} was killed by {signal.Signals(-said.exit_code).name}"]
    if state != status.FAILED:
        return []
    if said is None or said.job != job.id:  # what a job on a cloud printed stays there
        return [f"\n{name} failed; sky jobs logs {job.id} has its log"]
    lines = [f"  {line}" for line in status.log_tail(workdir, _TAIL)]
    return [f"\n{name} failed with exit code {said.exit_code}; the end of {workdir / status.LOG}:", *lines]


def _time(workdir):
    said = status.read_status(workdir)
    if said is None:
        return "-"
    minutes, seconds = divmod(round(said.total_seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _number(value):
    return "-" if value is None or value != value else f"{value:.3f}"


def _json(path):
    return json.loads(path.read_text()) if path.exists() else {}
