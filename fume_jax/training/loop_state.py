"""What the training loop itself remembers between steps; saved with every checkpoint, so that a run goes on exactly."""

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
    """Ends a run once a metric has not become better by more than `min_delta` in `patience` evaluations in a row.

    `mode` is `max` or `min`, whichever is better; a `patience` of 0 never ends a run.
    """

    metric: str
    mode: str
    patience: int
    min_delta: float
    best: float | None = None
    evaluations_without_gain: int = 0

    def update(self, scores: Mapping[str, float]) -> None:
        """Takes note of an evaluation; NaN is no gain."""
        value = scores[self.metric] if self.mode == "max" else -scores[self.metric]
        if not math.isnan(value) and (self.best is None or value > self.best + self.min_delta):
            self.best, self.evaluations_without_gain = value, 0
        else:
            self.evaluations_without_gain += 1

    @property
    def due(self) -> bool:
        return 0 < self.patience <= self.evaluations_without_gain


class LoopState:
    """Metrics of the steps since the last log, the updates skipped, and how evaluations went."""

    @classmethod
    def create(cls, config: ml_collections.ConfigDict) -> "LoopState":
        """Creates the loop state of a run before its first step."""
        options = config.early_stopping
        early_stopping = EarlyStopping(options.metric, options.mode, options.patience, options.min_delta)
        return cls(early_stopping, config.train.max_skipped_updates)

    def __init__(self, early_stopping: EarlyStopping, max_skipped: int):
        """A run may skip up to `max_skipped` updates whose loss or gradient is not finite."""
        self.early_stopping = early_stopping
        self._max_skipped = max_skipped
        self.skipped = 0
        self._since_log = []
        # The newest step's metrics stay on the device until the next step has been sent there.
        self._running = None

    def add(self, step: int, metrics: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> None:
        """Takes note of a step that was just sent to the device, and waits for the one before it.

        Raises:
          UserError: if that one was not finite, and more updates are skipped than may be.
        """
        # Waiting for one step back keeps the device busy, and batches from piling up on it.
        self._settle()
        self._running = step, metrics, batch["example_index"]

    def mean(self) -> dict[str, float]:
        """Means over the steps since it was last asked for, of those that took an update; `skipped` is their number.

        Raises:
          UserError: as `add`, of the newest step.
        """
        self._settle()
        taken = [metrics for metrics in self._since_log if not metrics["skipped"]] or self._since_log
        means = {name: float(np.mean([metrics[name] for metrics in taken])) for name in taken[0]}
        means["skipped"] = sum(metrics["skipped"] for metrics in self._since_log)
        self._since_log = []
        return means

    def to_json(self) -> dict:
        """Everything, as JSON can hold it.

        Raises:
          UserError: as `add`, of the newest step.
        """
        self._settle()
        return {
            "since_log": self._since_log,
            "skipped": self.skipped,
            "best": self.early_stopping.best,
            "evaluations_without_gain": self.early_stopping.evaluations_without_gain,
        }

    def restore(self, state: Mapping) -> None:
        """Puts back what `to_json` returned."""
        self._since_log = list(state["since_log"])
        self.skipped = state["skipped"]
        self.early_stopping.best = state["best"]
        self.early_stopping.evaluations_without_gain = state["evaluations_without_gain"]

    def _settle(self):
        if self._running is None:
            return
        step, metrics, example_index = self._running
        self._running = None
        metrics = {name: float(value) for name, value in jax.device_get(metrics).items()}
        self._since_log.append(metrics)
        if metrics["skipped"]:
            self.skipped += 1
            if self.skipped > self._max_skipped:
                raise UserError(_not_finite(step, metrics, example_index, self._max_skipped))


def _not_finite(step, metrics, example_index, max_skipped):
    terms = ", ".join(f"{name} {value:g}" for name, value in metrics.items() if name not in ("skipped", "param_norm"))
    examples = replicate_to_hosts(example_index)
    before = f", after {max_skipped} skipped updates" if max_skipped else ""
    return (
        f"The loss or the gradient is not finite at step {step}{before}: {terms}. The step saw the training examples "
        f"{', '.join(map(str, examples))}. Look at them; or, in another --workdir, lower "
        "--config.optimizer.learning_rate or --config.optimizer.clip_norm, or let single steps be skipped: "
        "--config.train.max_skipped_updates=10."
    )
