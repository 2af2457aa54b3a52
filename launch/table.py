"""Table of commands: their states and times, and of the runs of a sweep the progress and the scores."""

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fume_jax.evaluation.tables import aligned
from fume_jax.runtime.errors import UserError, explain
from fume_jax.runtime.files import read_json, readable
from launch import status

METRICS = ("iou_gas", "mean_iou", "balanced_accuracy", "macro_f1")
_COLUMNS = ("epoch", "step", "scores of", *METRICS)


def status_table(
    workdir: Path,
    states: Mapping[str, str],
    *,
    noun: str = "run",
    columns: Sequence[str] = _COLUMNS,
    cells: Callable[[Path], Sequence[str]] = lambda folder: (*progress(folder), *scores(folder)),
) -> tuple[str, list[str]]:
    """Returns a line for each run by the states of the runs, and the ends of the logs of failed runs.

    `columns` are those between state and time, whose `cells` are known by the folder of a run; `noun` is what a run is
    called. A run whose files are damaged has a line too, and a note that names the file. Also returns the names of such
    runs.
    """
    rows = [(noun, "state", *columns, "time")]
    notes, damaged = [], []
    for name, state in states.items():
        folder = workdir / name
        try:
            with readable(folder, f"a {noun} of this version"):
                row = (name, state, *cells(folder), _time(folder))
                notes += _notes(folder, name, state)
        except (UserError, OSError) as error:
            row = (name, state, *("-",) * (len(rows[0]) - 2))
            notes.append(f"\n{name} cannot be shown: {explain(error)}")
            damaged.append(name)
        rows.append(row)
    return "\n".join([aligned(rows, words=2), *notes]), damaged


def progress(workdir: Path) -> tuple[str, str]:
    """Returns the evaluated epochs out of all, and the step of the last checkpoint, as text."""
    config, evaluated = _json(workdir / "config.json"), _json(workdir / "validation.json")
    # A run that was copied here may lack its checkpoints.
    steps = [path.name for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()] + list(evaluated)
    if not config or not steps:
        return "-", "-"
    epochs = config["train"]["epochs"]
    return f"{min(len(evaluated) * config['eval']['every_epochs'], epochs)}/{epochs}", str(max(map(int, steps)))


def scores(workdir: Path) -> tuple[str, ...]:
    """Returns a split and its `METRICS`, as text: test once the run is scored, until then the best of val."""
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
    """Returns the scores of a run in one line."""
    split, *values = scores(workdir)
    known = [f"{name} {value}" for name, value in zip(METRICS, values, strict=True) if value != "-"]
    return f"{split}: {', '.join(known)}" if known else ""


def _notes(workdir, name, state):
    """Returns lines below the table: the signal that killed a run, or the end of the log of a failed one."""
    last, job = status.read_status(workdir), status.read_job(workdir)
    if state == status.STOPPED and last and (last.exit_code or 0) < 0 and last.exit_code != -signal.SIGTERM:
        return [f"\n{name} was killed by {signal.Signals(-last.exit_code).name}"]
    if state != status.FAILED:
        return []
    if last is None or last.job != job.id:  # the log of a job on a cloud stays there
        return [f"\n{name} failed; sky jobs logs {job.id} has its log"]
    lines = [f"  {line}" for line in status.log_tail(workdir, lines=4)]
    return [f"\n{name} failed with exit code {last.exit_code}; the end of {workdir / status.LOG}:", *lines]


def _time(workdir):
    last = status.read_status(workdir)
    if last is None:
        return "-"
    minutes, seconds = divmod(round(last.total_seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"


def _number(value):
    return "-" if value is None or value != value else f"{value:.3f}"


def _json(path):
    return read_json(path) if path.exists() else {}
