"""Runs that are scored: their test examples, those of folds put together and those of seeds side by side."""

import collections
import csv
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fume_jax.evaluation.evaluator import Results
from fume_jax.evaluation.per_example import read_results
from fume_jax.learning.bootstrap import sum_by_group
from fume_jax.learning.metrics import HEADLINES, RECORDING_METRICS, compute_metrics, recording_metrics
from fume_jax.learning.recording_class import recording_confusions
from fume_jax.learning.statistics import Resampled, mean_over_runs, resample
from fume_jax.runtime.files import read_json, replacing
from fume_jax.schema import GASES

EXAMPLES = "examples/test.csv"
# Metrics that tables of runs show.
SHOWN = (*HEADLINES, *(f"recording/{name}" for name in RECORDING_METRICS))
# The name of a run of a sweep: its entry and the values of a grid, then its fold, if it has one, and its seed.
_NAME = re.compile(r"(?P<entry>.*?)-?(?:fold_(?P<fold>\d+)-)?seed_(?P<seed>\d+)")


@dataclasses.dataclass(frozen=True)
class ScoredRun:
    """A run whose test split is scored. An entry is what runs have in common that differ in fold or seed alone."""

    name: str
    entry: str
    fold: int
    seed: int
    dataset: str  # digest of the dataset, or of its fold
    metrics: Mapping[str, float]  # those of the test split, by name
    results: Results  # of its test examples, see `read_results`


@dataclasses.dataclass(frozen=True, eq=False)
class Pooled:
    """The test examples of the runs of an entry. S seeds have the same examples, of G groups of recordings."""

    entry: str
    seeds: Sequence[int]
    runs: Sequence[ScoredRun]
    examples: Sequence[tuple[str, int]]  # dataset and index of each
    # By group, confusion counts int [G, S, 3, 3]: those of `compute_metrics`, and `recording_confusion`; and sums of
    # `{gas}_distances`, float [G, S, 3]: HD95, ASSD, and the number of frames that have them.
    by_group: Mapping[str, np.ndarray]
    # Whether the mean of the seeds' probabilities gives a recording its class, bool [R]; empty without classes.
    recordings_right: np.ndarray

    @functools.cached_property
    def resampled(self) -> Resampled:
        """All metrics, the means over seeds, of all groups and of resamples of them."""
        return resample(self.by_group, mean_over_runs(all_metrics))


def read_runs(folder: Path, names: Sequence[str]) -> tuple[list[ScoredRun], list[str]]:
    """Reads the scored runs of a folder, and returns the names of those that are not scored yet.

    Raises UserError that names the file if one is damaged, or of an earlier version.
    """
    runs, missing = [], []
    for name in names:
        if not ((folder / name / "metrics.json").is_file() and (folder / name / EXAMPLES).is_file()):
            missing.append(name)
            continue
        found = _NAME.fullmatch(name)
        entry, fold, seed = found.group("entry", "fold", "seed") if found else (name, None, None)
        scores = read_json(folder / name / "metrics.json")
        metrics = {key.removeprefix("test/"): value for key, value in scores.items() if key.startswith("test/")}
        place = {"entry": entry or folder.absolute().name, "fold": int(fold or 0), "seed": int(seed or 0)}
        results = read_results(folder / name / EXAMPLES)
        runs.append(ScoredRun(name, **place, dataset=scores["dataset_digest"], metrics=metrics, results=results))
    return runs, missing


def pool(runs: Sequence[ScoredRun], folds: int = 0) -> tuple[list[Pooled], list[str]]:
    """Pools the runs of each entry: the examples of all folds of a seed count as those of one run.

    Seeds that lack a fold, of `folds` or of those that others have, are left out. Returns the entries, without those of
    which nothing is left, and a sentence about each seed that is left out.
    """
    by_entry, pooled, notes = collections.defaultdict(lambda: collections.defaultdict(list)), [], []
    for run in runs:
        by_entry[run.entry][run.seed].append(run)
    for entry, by_seed in by_entry.items():
        every = set(range(folds)) or {run.fold for own in by_seed.values() for run in own}
        complete = {}
        for seed, own in sorted(by_seed.items()):
            if lacking := sorted(every - {run.fold for run in own}):
                words = ", ".join(map(str, lacking))
                notes.append(f"{entry}, seed {seed} is left out: fold {words} of it is not scored.")
            else:
                complete[seed] = _together(sorted(own, key=lambda run: run.fold))
        first = next(iter(complete.values()), None)
        for seed, (examples, _) in list(complete.items()):
            if examples != first[0]:
                notes.append(f"{entry}, seed {seed} is left out: it was scored on other examples than the first seed.")
                del complete[seed]
        if complete:
            own = [run for seed in complete for run in by_seed[seed]]
            pooled.append(_side_by_side(entry, own, complete))
    return pooled, notes


def metrics(counts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Computes the metrics that tables show: the headline metrics, and those of recordings; see `all_metrics`."""
    found = all_metrics(counts)
    return {name: found[name] for name in SHOWN if name in found}


def all_metrics(counts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Computes all metrics from summed counts, those of gases, classes and recordings too, and distances in pixels.

    See `Pooled.by_group`.
    """
    found = compute_metrics(counts)
    if "recording_confusion" in counts:
        found |= recording_metrics({"cls_confusion": counts["recording_confusion"]})
    by_gas = {f"{gas}/": counts[f"{gas}_distances"] for gas in GASES if f"{gas}_distances" in counts}
    for prefix, sums in ({"": sum(by_gas.values())} | by_gas if by_gas else {}).items():
        means = sums[:2] / sums[2] if sums[2] else np.full(2, np.nan)
        found |= {f"{prefix}hd95": float(means[0]), f"{prefix}asd": float(means[1])}
    return found


def write_rows(path: Path, rows: Sequence[Mapping]) -> None:
    """Writes rows, dicts by column, as CSV; NaN and columns that a row lacks become empty cells."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)


def _together(runs):
    """Returns the examples of the folds of a seed, and their results, in the order of the examples."""
    examples = [(run.dataset, int(index)) for run in runs for index in run.results["example_index"]]
    order = sorted(range(len(examples)), key=examples.__getitem__)
    results = {name: np.concatenate([run.results[name] for run in runs])[order] for name in runs[0].results}
    return [examples[i] for i in order], results


def _distances(results, gas):
    """Returns HD95, ASSD and 1 of each frame, float [N, 3]; zeros if it has no distances."""
    pairs = np.stack([results[f"{gas}_hd95"], results[f"{gas}_asd"]], -1)
    known = ~np.isnan(pairs[:, :1])
    return np.concatenate([np.where(known, pairs, 0), known], -1)


def _side_by_side(entry, runs, by_seed):
    """Returns the entry of seeds whose examples and results are given by seed."""
    (examples, first), seeds = next(iter(by_seed.values())), [results for _, results in by_seed.values()]
    names = [name for name in first if name.endswith("_confusion")]
    counts = {name: np.stack([results[name] for results in seeds], 1) for name in names}
    for gas in (gas for gas in GASES if f"{gas}_hd95" in first):
        counts[f"{gas}_distances"] = np.stack([_distances(results, gas) for results in seeds], 1)
    by_group, right = sum_by_group(counts, first["recording_index"]), np.zeros(0, bool)
    if "probabilities" in first:
        given = first["labels"], first["recording_index"]
        each = [recording_confusions(results["probabilities"], *given) for results in seeds]
        whole = {"recording_confusion": np.stack([confusions for confusions, _ in each], 1)}
        by_group |= sum_by_group(whole, each[0][1])
        mean = np.mean([results["probabilities"] for results in seeds], 0)
        right = np.trace(recording_confusions(mean, *given)[0], axis1=1, axis2=2) == 1
    return Pooled(entry, list(by_seed), runs, examples, by_group, right)
