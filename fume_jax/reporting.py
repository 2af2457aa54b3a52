"""What a run tells of its steps: on the console and in TensorBoard."""

import functools

import jax
import ml_collections
import numpy as np
import optax
import psutil
from jax.sharding import Mesh

from fume_jax import build, evaluation, guards, pictures, settings, sharding
from fume_jax.console import Console, epoch_table
from fume_jax.input_pipeline import Dataset
from fume_jax.monitoring import Monitor
from fume_jax.pace import Pace
from fume_jax.progress import Progress
from fume_jax.stopping import StopRequest
from fume_jax.train_step import TrainState


class Reporter:
    """Logs training steps, and scores the validation split and logs that."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        dataset: Dataset,
        mesh: Mesh,
        schedule: optax.Schedule,
        console: Console,
        monitor: Monitor,
        start_step: int,
        steps_per_epoch: int,
    ):
        self._config, self._schedule, self._console, self._monitor = config, jax.jit(schedule), console, monitor
        self._steps_per_epoch, self._total_steps = steps_per_epoch, config.train.epochs * steps_per_epoch
        self._eval_fn, self._predict_fn = build.eval_and_predict_fns(config, mesh)
        self._val_batches = functools.partial(build.evaluation_batches, config, dataset, mesh, "val")
        size = len(dataset.split("val"))
        pictured = np.linspace(0, size - 1, min(config.log.pictures, size)).astype(int)
        self._pictured = functools.partial(build.chosen_batch, config, dataset, mesh, "val", pictured)
        self._val_steps = build.evaluation_steps(config, dataset, mesh, "val")
        self._bar = console.bar(total=self._total_steps, initial=start_step, unit="step")
        monitor.text("config", f"```json\n{config.to_json_best_effort(indent=2)}\n```")
        monitor.hparams(build.hparams(config), [f"test/{name}" for name in settings.headlines(config)])

    def step_done(self, step: int) -> None:
        """Moves the bar on."""
        self._bar.set_description(f"epoch {self._epoch(step)}/{self._config.train.epochs}", refresh=False)
        self._bar.update()

    def log(self, step: int, progress: Progress, pace: Pace) -> None:
        """Logs the means over the steps since the last log, the learning rate, speed and memory."""
        speed, means = pace.measure(), progress.mean()
        means["learning_rate"] = float(self._schedule(step - 1 - progress.skipped))
        self._monitor.scalars(step, "train", means)
        self._monitor.scalars(step, "speed", speed)
        self._monitor.scalars(step, "memory", _memory())
        if means["skipped"]:
            self._console.warn(f"{means['skipped']:.0f} update(s) without finite loss or gradient skipped")
        shown = f"loss {means['loss']:.3f}" + (f", {speed['pairs_per_second']:.1f} pairs/s" if speed else "")
        if self._console.bars:
            self._bar.set_postfix_str(shown)
        else:
            self._console.say(f"epoch {self._epoch(step)}, step {step} of {self._total_steps}: {shown}")

    def validate(self, step: int, state: TrainState, stop: StopRequest) -> dict[str, float]:
        """Scores the validation split, and logs the scores and some pairs of it.

        Raises:
          Stopped: if a stop is requested meanwhile; nothing is logged then.
        """
        batches = stop.until(self._val_batches())
        batches = self._console.over(batches, total=self._val_steps, unit="batch", desc="validate")
        with guards.out_of_memory(**build.eval_batch_shape(self._config)):
            results = evaluation.collect(self._eval_fn, state.model, batches)
        scores = evaluation.score(results, **build.task_weights(self._config))
        self._monitor.scalars(step, "val", scores)
        if "probabilities" in results:
            self._monitor.pr_curves(step, "val", results["labels"], results["probabilities"])
            from fume_jax import charts  # matplotlib takes half a second, which the first step need not wait for

            confusion = charts.confusion_chart(results["cls_confusion"].sum(0))
            self._monitor.picture(step, "val/confusion", confusion)
        if self._config.log.pictures:
            batch = self._pictured()
            outputs = self._predict_fn(**state.model, batch=batch)
            panel = pictures.pair_panel(*sharding.to_all((batch, outputs)), self._config.log.pictures)
            self._monitor.picture(step, "val/overlays", panel)
        where = f"epoch {self._epoch(step)} of {self._config.train.epochs}, step {step}"
        self._console.say(f"{where}: validation loss {scores['loss']:.3f}\n{epoch_table(scores)}")
        return scores

    def close(self) -> None:
        self._bar.close()

    def _epoch(self, step):
        """The epoch that a step belongs to, from 1 on."""
        return -(-step // self._steps_per_epoch)


def _memory():
    """Gigabytes in use: of the first device, where it tells, and of this process on the host."""
    device = jax.local_devices()[0].memory_stats() or {}
    memory = {"device_peak_gb": device["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in device else {}
    return memory | {"host_gb": psutil.Process().memory_info().rss / 1e9}
