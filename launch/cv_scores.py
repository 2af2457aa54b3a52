"""Scores of a cross-validation: over runs, and of all examples, each predicted by a model that has not seen it."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fume_jax.evaluation.tables import aligned
from fume_jax.learning.statistics import BCA, FEW_GROUPS, intervals, mean_over_runs
from launch.scored import EXAMPLES, Pooled, all_metrics, write_rows

_COLUMNS = ("run", "metric", "runs", "mean", "sd", "pooled", "low", "high", "method")


def score_rows(pooled: Pooled) -> list[dict]:
    """Returns a row for each of all metrics of an entry, by `_COLUMNS`; a value that is unknown is NaN.

    `mean` and `sd` are of the scores of the runs that have the metric. `pooled` is the metric of all examples, averaged
    over the seeds, with its 95 % interval over groups of recordings.
    """
    found, rows = pooled.resampled, []
    ends = intervals(found, pooled.by_group, mean_over_runs(all_metrics))
    for name, value in found.values.items():
        scores = [run.metrics[name] for run in pooled.runs if run.metrics.get(name) is not None]
        mean = float(np.mean(scores)) if scores else math.nan
        spread = float(np.std(scores, ddof=1)) if len(scores) > 1 else math.nan
        interval = ends[name]
        cells = (len(scores), mean, spread, value, interval.low, interval.high, interval.method)
        rows.append(dict(zip(_COLUMNS, (pooled.entry, name, *cells), strict=True)))
    return rows


def scores_table(pooled: Sequence[Pooled], rows: Sequence[dict]) -> str:
    """Formats the rows of all entries as a table, and below it what its intervals are."""
    lines = [("run", "metric", "runs", "mean", "sd", "pooled", "95 % interval", "method")]
    for row in rows:
        numbers = (_number(row[name]) for name in ("mean", "sd", "pooled"))
        interval = "-" if math.isnan(row["low"]) else f"{row['low']:.3f} to {row['high']:.3f}"
        lines.append((row["run"], row["metric"], str(row["runs"]), *numbers, interval, row["method"]))
    notes = []
    for own in pooled:
        groups = len(next(iter(own.by_group.values())))
        seeds = f"the mean of {len(own.seeds)} seeds" if len(own.seeds) > 1 else "one seed"
        few = f"; fewer than {FEW_GROUPS}, so the intervals mean little" * (groups < FEW_GROUPS)
        notes.append(f"{own.entry}: {len(own.examples):,} examples of {groups} groups of recordings, {seeds}{few}")
    if any(row["method"] != BCA and not math.isnan(row["low"]) for row in rows):
        notes.append("Intervals by percentile are of few groups, or of a metric that some resamples lack.")
    return "\n".join([aligned(lines, words=2), *notes])


def write_examples(path: Path, folder: Path, pooled: Sequence[Pooled]) -> None:
    """Writes the tables of test examples of all runs as one, with columns for the run, its fold and its seed."""
    rows = []
    for run in (run for own in pooled for run in own.runs):
        with (folder / run.name / EXAMPLES).open(newline="", encoding="utf-8") as file:
            place = {"run": run.entry, "fold": run.fold, "seed": run.seed}
            rows += [place | row for row in csv.DictReader(file)]
    write_rows(path, rows)


def _number(value):
    return "-" if math.isnan(value) else f"{value:.3f}"
