"""Compares the runs of a sweep with those of its main entry on the same test examples."""

import dataclasses
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fume_jax.learning import statistics
from fume_jax.learning.statistics import FEW_GROUPS, difference, holm, mean_over_runs
from fume_jax.runtime.errors import UserError
from launch.scored import Pooled, metrics, pool, read_runs

# Names of entries that others are compared with, unless another is named.
MAINS = ("reference", "fume")
# Fewer recordings that two models disagree about cannot have p < 0.05: 2 / 2^5 is more.
FEW_DISCORDANT = 6


@dataclasses.dataclass(frozen=True)
class MetricRow:
    """A metric of an entry, and main less it: the difference, and that of single groups by their deviation, d_z."""

    metric: str
    run: str
    seeds: int
    mean: float
    sd: float
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    p_holm: float = math.nan
    effect: float = math.nan
    effect_low: float = math.nan
    effect_high: float = math.nan


@dataclasses.dataclass(frozen=True)
class ClassRow:
    """Recordings that only the main entry, or only the other one, classifies right; see `statistics.mcnemar`."""

    run: str
    recordings: int
    main_alone: int
    other_alone: int
    odds_ratio: float
    low: float
    high: float
    p: float
    p_holm: float = math.nan


def load(folder: Path, main: str | None, *, least: int = 2) -> tuple[Pooled, list[Pooled], list[str]]:
    """Reads the scored runs of a folder: the main entry, the others of the same examples, and what is left out.

    Without `main` it is the first of `MAINS` that there is, or the only entry. Raises UserError if there is no such
    folder, no such entry, or fewer than the least number of entries.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}, given by --runs.")
    runs, missing = read_runs(folder, sorted(path.parent.name for path in folder.glob("*/config.json")))
    pooled, left_out = pool(runs)
    known = [own.entry for own in pooled]
    if not known and (folder / "config.json").is_file():
        above = os.path.relpath(folder.resolve().parent)
        raise UserError(f"--runs={folder} is a single run; expected the folder that it is in: --runs={above}.")
    if not known:
        raise UserError(f"--runs={folder} holds no scored run; expected the folder of a sweep whose runs are done.")
    main = main or next((name for name in (*MAINS, *known[: len(known) == 1]) if name in known), "unset")
    if main not in known or len(known) < least:
        expected, found = "one of two or more" if least > 1 else "one of the", ", ".join(known)
        raise UserError(f"--main is {main}; expected {expected} scored entries of {folder}: {found}.")
    reference, others, different = select(pooled, main)
    return reference, others, left_out + different + [f"{name} is left out: it is not scored yet." for name in missing]


def select(pooled: Sequence[Pooled], main: str) -> tuple[Pooled, list[Pooled], list[str]]:
    """Returns the main entry, the others of the same examples, and a sentence about each that is left out."""
    entries = {own.entry: own for own in pooled}
    same = [own for own in pooled if own.entry != main and own.examples == entries[main].examples]
    left = [entry for entry, own in entries.items() if entry != main and own not in same]
    return entries[main], same, [f"{entry} is left out: it was scored on other examples than {main}." for entry in left]


def known_metrics(pooled: Pooled) -> list[str]:
    """Returns the names of the metrics of an entry."""
    return list(metrics({name: values.sum(0)[0] for name, values in pooled.by_group.items()}))


def compare_metrics(main: Pooled, others: Sequence[Pooled]) -> list[MetricRow]:
    """Compares every metric of each of the others with main; p-values are corrected within a metric.

    Metrics are averaged over seeds before anything else. Those of a model that lacks a task are left out.
    """
    names, alone = known_metrics(main), _by_group(main)
    rows, table = [], []
    for other in others:
        own = _by_group(other)
        for name in (name for name in names if name in own):
            compared = difference(main.resampled, other.resampled, name)
            effect = statistics.standardized_difference(alone[name] - own[name])
            ends = (compared.value, compared.low, compared.high, compared.p)
            rows.append(MetricRow(name, other.entry, *_over_seeds(other, name), *ends, math.nan, *effect))
    for name in names:
        own = [row for row in rows if row.metric == name]
        adjusted = holm([row.p for row in own])
        table.append(MetricRow(name, main.entry, *_over_seeds(main, name)))
        table += [dataclasses.replace(row, p_holm=p) for row, p in zip(own, adjusted, strict=True)]
    return table


def compare_classes(main: Pooled, others: Sequence[Pooled]) -> list[ClassRow]:
    """Compares which recordings each of the others and main classify right, by the mean of their seeds' probabilities.

    Models without classes are left out.
    """
    rows = []
    for other in (other for other in others if len(other.recordings_right) and len(main.recordings_right)):
        found = statistics.mcnemar(main.recordings_right, other.recordings_right)
        rows.append(ClassRow(other.entry, len(main.recordings_right), *dataclasses.astuple(found)))
    adjusted = holm([row.p for row in rows])
    return [dataclasses.replace(row, p_holm=p) for row, p in zip(rows, adjusted, strict=True)]


def caveats(main: Pooled, others: Sequence[Pooled], class_rows: Sequence[ClassRow]) -> list[str]:
    """Returns a sentence for everything of which there is too little to say much."""
    notes, groups = [], len(next(iter(main.by_group.values())))
    if groups < 2:
        notes.append("The test examples are of one group of recordings, so nothing can be said about other recordings.")
    elif groups < FEW_GROUPS:
        notes.append(f"There are only {groups} independent groups of recordings; intervals and p-values mean little.")
    if single := [own.entry for own in (main, *others) if len(own.seeds) == 1]:
        one = "has one seed" if len(single) == 1 else "have one seed each"
        notes.append(f"{', '.join(single)} {one}; the differences may be those of chance in training.")
    for row in class_rows:
        if (count := row.main_alone + row.other_alone) < FEW_DISCORDANT:
            enough = f"McNemar's test needs {FEW_DISCORDANT} to find a difference"
            notes.append(f"{main.entry} and {row.run} disagree about {count} recordings; {enough}.")
    return notes


def markdown(
    main: Pooled, metric_rows: Sequence[MetricRow], class_rows: Sequence[ClassRow], chosen: Sequence[str]
) -> str:
    """Formats the chosen metrics, a table each, and the comparison of classes as Markdown."""
    parts = []
    for name in chosen:
        cells = [_metric_cells(row) for row in metric_rows if row.metric == name]
        head = ("run", "seeds", "mean", "sd", f"{main.entry} less it", "95 % interval", "p", "p (Holm)", "d_z")
        parts.append(f"### {name}\n\n{_table(head, cells)}")
    if class_rows:
        head = ("run", "recordings", f"{main.entry} alone right", "it alone right", "odds ratio", "95 % interval")
        rows = [_class_cells(row) for row in class_rows]
        parts.append(f"### Classes of recordings\n\n{_table((*head, 'p (McNemar)', 'p (Holm)'), rows)}")
    return "\n\n".join(parts)


def _by_group(pooled):
    """Returns the metrics of single groups, float [G] by name; NaN where a group has none."""
    count, statistic = len(next(iter(pooled.by_group.values()))), mean_over_runs(metrics)
    found = [statistic({name: values[i] for name, values in pooled.by_group.items()}) for i in range(count)]
    return {name: np.array([values[name] for values in found]) for name in found[0]}


def _over_seeds(pooled, name):
    """Returns the number of seeds, and mean and standard deviation of a metric over them."""
    sums = {key: values.sum(0) for key, values in pooled.by_group.items()}
    found = [metrics({key: values[i] for key, values in sums.items()})[name] for i in range(len(pooled.seeds))]
    return len(found), float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else math.nan


def _metric_cells(row):
    numbers = (_number(row.mean), _number(row.sd), _number(row.difference), _interval(row.low, row.high))
    effect = f"{row.effect:.2f} ({_interval(row.effect_low, row.effect_high)})"
    effect = "-" if math.isnan(row.effect) else effect
    return (row.run, str(row.seeds), *numbers, _p_value(row.p), _p_value(row.p_holm), effect)


def _class_cells(row):
    counts = (row.recordings, row.main_alone, row.other_alone)
    odds = (_number(row.odds_ratio), _interval(row.low, row.high))
    return (row.run, *map(str, counts), *odds, _p_value(row.p), _p_value(row.p_holm))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(value):
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(low, high):
    return "-" if math.isnan(low) else f"{low:.3f} to {high:.3f}"


def _p_value(value):
    return "-" if math.isnan(value) else f"{value:.4f}" if value >= 0.001 else "< 0.001"
