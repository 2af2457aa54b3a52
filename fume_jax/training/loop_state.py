"""Keeps the state of the training loop between steps; checkpoints hold it, so that a run resumes exactly."""

import dataclasses
import math
from collections.abc import Mapping

import jax
import ml_collections
import numpy as np

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import replicate_to_hosts


@dataclasses.dataclass
class EarlyStopping:
    """Ends a run once a metric has not improved by more than `min_delta` in `patience` consecutive evaluations.

    `mode` is `max` or `min`, the better direction; a `patience` of 0 never ends a run.
    """

    metric: str
    mode: str
    patience: int
    min_delta: float
    best: float | None = None
    evaluations_without_gain: int = 0

    def update(self, scores: Mapping[str, float]) -> None:
        """Records an evaluation; NaN is no improvement."""
        value = scores[self.metric] if self.mode == "max" else -scores[self.metric]
        if not math.isnan(value) and (self.best is None or value > self.best + self.min_delta):
            self.best, self.evaluations_without_gain = value, 0
        else:
            self.evaluations_without_gain += 1

    @property
    def due(self) -> bool:
        return 0 < self.patience <= self.evaluations_without_gain


class LoopState:
    """Holds the metrics of the steps since the last log, the number of skipped updates, and early stopping."""

    @classmethod
    def create(cls, config: ml_collections.ConfigDict) -> "LoopState":
        """Creates the loop state of a run before its first step."""
        options = config.early_stopping
        early_stopping = EarlyStopping(options.metric, options.mode, options.patience, options.min_delta)
        return cls(early_stopping, config.train.max_skipped_updates)

    def __init__(self, early_stopping: EarlyStopping, max_skipped: int):
        """Allows up to `max_skipped` skipped updates, those whose loss or gradient is not finite."""
        self.early_stopping = early_stopping
        self._max_skipped = max_skipped
        self.skipped = 0
        self._since_log = []
        # The latest step, whose metrics stay on the device until the next step was sent there.
        self._pending = None

    def add(self, step: int, metrics: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> None:
        """Records a step just sent to the device; UserError if the previous one exceeds the allowed skipped updates."""
        # Waiting for the previous step keeps the device busy, and the number of batches on it small.
        self._wait_for_pending()
        self._pending = step, metrics, batch["example_index"]

    def mean(self) -> dict[str, float]:
        """Returns means over the updates since the last call, and their number of `skipped` ones; raises as `add`."""
        self._wait_for_pending()
        taken = [metrics for metrics in self._since_log if not metrics["skipped"]] or self._since_log
        means = {name: float(np.mean([metrics[name] for metrics in taken])) for name in taken[0]}
        means["skipped"] = sum(metrics["skipped"] for metrics in self._since_log)
        self._since_log = []
        return means

    def to_json(self) -> dict:
        """Returns the loop state as JSON values; raises as `add`."""
        self._wait_for_pending()
        return {
            "since_log": self._since_log,
            "skipped": self.skipped,
            "best": self.early_stopping.best,
            "evaluations_without_gain": self.early_stopping.evaluations_without_gain,
        }

    def restore(self, state: Mapping) -> None:
        """Restores the values that `to_json` returned."""
        self._since_log = list(state["since_log"])
        self.skipped = state["skipped"]
        self.early_stopping.best = state["best"]
        self.early_stopping.evaluations_without_gain = state["evaluations_without_gain"]

    def _wait_for_pending(self):
        if self._pending is None:
            return
        step, metrics, example_index = self._pending
        self._pending = None
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._since_log.append(metrics)
        self.skipped += bool(metrics["skipped"])
        if metrics["skipped"] and self.skipped > self._max_skipped:
            terms = ", ".join(f"{name} {x:g}" for name, x in metrics.items() if name not in ("skipped", "param_norm"))
            examples = ", ".join(map(str, replicate_to_hosts(example_index)))
            before = f", after {self._max_skipped} skipped updates" if self._max_skipped else ""
            raise UserError(
                f"The loss or the gradient is not finite at step {step}{before}: {terms}. The step saw the training "
                f"examples {examples}. Look at them; or, in another --workdir, lower --config.optimizer.learning_rate "
                "or --config.optimizer.clip_norm, or let single steps be skipped: "
                "--config.train.max_skipped_updates=10."
            )
