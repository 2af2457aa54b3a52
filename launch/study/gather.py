"""Gathers what a report shows of a folder of runs: scores, comparisons, sizes, speed and curves of training."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from fume_jax.training.checkpoint import load_config
from fume_jax.training.tensorboard import read_scalars
from launch import comparison
from launch.comparison import ClassRow, MetricRow
from launch.cv_scores import score_rows
from launch.scored import Pooled
from launch.study.cost import Cost, describe_device, measure_costs

# What is read of the logs of a training.
CURVES = ("train/loss", "val/mean_iou", "val/balanced_accuracy")


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry of a sweep: runs that differ in seed or fold alone."""

    pooled: Pooled
    config: ml_collections.ConfigDict  # of its first run
    scores: Mapping[str, Mapping]  # rows of `score_rows` by metric
    cost: Cost
    curves: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]]  # of every run, by tag

    @property
    def name(self) -> str:
        return self.pooled.entry

    def score(self, metric: str) -> float:
        """Returns a metric of all test examples, the mean over seeds; NaN if the model lacks it."""
        return self.scores.get(metric, {}).get("pooled", np.nan)


@dataclasses.dataclass(frozen=True)
class Study:
    """The entries of a folder, the main one first, and how the others compare with it."""

    folder: Path
    entries: Sequence[Entry]
    metric_rows: Sequence[MetricRow]
    class_rows: Sequence[ClassRow]
    caveats: Sequence[str]  # of what there is too little to say much
    left_out: Sequence[str]  # of what the folder has besides
    device: str | None  # that was timed

    @property
    def main(self) -> Entry:
        return self.entries[0]

    @property
    def size(self) -> str:
        """Width and height of the frames of the main entry."""
        return f"{self.main.config.data.width}x{self.main.config.data.height}"


def gather(folder: Path, main: str | None, *, timed: bool) -> Study:
    """Reads the scored runs of a folder, compares them with the main entry, and measures their models.

    Raises UserError if there is no such folder or entry, or a file is damaged.
    """
    reference, others, left_out = comparison.load(folder, main, least=1)
    pools = [reference, *others]
    configs = [load_config(folder / pooled.runs[0].name) for pooled in pools]
    costs = measure_costs(configs, timed=timed)
    entries = [_entry(folder, *of) for of in zip(pools, configs, costs, strict=True)]
    metric_rows = comparison.compare_metrics(reference, others)
    class_rows = comparison.compare_classes(reference, others)
    caveats = comparison.caveats(reference, others, class_rows)
    device = describe_device() if timed else None
    return Study(folder, entries, metric_rows, class_rows, caveats, left_out, device)


def _entry(folder, pooled, config, cost):
    scores = {row["metric"]: row for row in score_rows(pooled)}
    logs = [read_scalars(folder / run.name) for run in pooled.runs]
    curves = {tag: [log[tag] for log in logs if tag in log] for tag in CURVES}
    return Entry(pooled, config, scores, cost, curves)
