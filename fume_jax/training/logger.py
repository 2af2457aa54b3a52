"""Logs a training run to the console and to TensorBoard."""

import time
from collections.abc import Iterator

import jax
import ml_collections
import numpy as np
import optax
import psutil
from jax.sharding import Mesh

from fume_jax.config import MODEL_OPTIONS, eval_batch_shape, get_architecture, headline_metrics, task_weights
from fume_jax.data.loader import Loader
from fume_jax.evaluation import overlays
from fume_jax.evaluation.evaluator import collect_results, create_eval_fns, score_results
from fume_jax.evaluation.tables import epoch_table
from fume_jax.learning.step import TrainState
from fume_jax.runtime import preflight
from fume_jax.runtime.console import Console
from fume_jax.runtime.mesh import replicate_to_hosts
from fume_jax.runtime.preemption import StopRequest
from fume_jax.training.loop_state import LoopState
from fume_jax.training.tensorboard import EventLog


class Throughput:
    """Measures the speed of steps and their time of waiting for input, since the last measurement."""

    def __init__(self, batches: Iterator[dict], pairs_a_step: int):
        self._batches, self._pairs = batches, pairs_a_step
        self.restart()

    def restart(self) -> None:
        """Starts a measurement, such as after an evaluation."""
        self._start, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def next_batch(self) -> dict:
        start = time.perf_counter()
        batch = next(self._batches)
        self._waited += time.perf_counter() - start
        self._steps += 1
        return batch

    def measure(self) -> dict[str, float]:
        """Returns `pairs_per_second` and `input_wait`, the share of time waiting for batches; nothing before a step."""
        if not self._steps:
            return {}
        seconds = time.perf_counter() - self._start
        values = {"pairs_per_second": self._steps * self._pairs / seconds, "input_wait": self._waited / seconds}
        self.restart()
        return values


class Logger:
    """Logs training steps, and scores the validation split and logs the scores."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        loader: Loader,
        mesh: Mesh,
        schedule: optax.Schedule,
        console: Console,
        events: EventLog,
        start_step: int,
        steps_per_epoch: int,
    ):
        self._config, self._loader, self._console, self._events = config, loader, console, events
        self._schedule = jax.jit(schedule)
        self._steps_per_epoch, self._total_steps = steps_per_epoch, config.train.epochs * steps_per_epoch
        self._eval_fn, self._predict_fn = create_eval_fns(config, mesh)
        size = len(loader.dataset.split("val"))
        self._shown = np.linspace(0, size - 1, min(config.log.images, size)).astype(int)
        self._bar = console.bar(total=self._total_steps, initial=start_step, unit="step")
        events.text("config", f"```json\n{config.to_json_best_effort(indent=2)}\n```")
        events.hparams(_hparams(config), [f"test/{name}" for name in headline_metrics(config)])

    def step_done(self, step: int) -> None:
        """Advances the progress bar."""
        self._bar.set_description(f"epoch {self._epoch(step)}/{self._config.train.epochs}", refresh=False)
        self._bar.update()

    def log(self, step: int, loop_state: LoopState, throughput: Throughput) -> None:
        """Logs the means over the steps since the last log, the learning rate, speed and memory."""
        speed, means = throughput.measure(), loop_state.mean()
        means["learning_rate"] = float(self._schedule(step - 1 - loop_state.skipped))
        for prefix, values in (("train", means), ("speed", speed), ("memory", _memory())):
            self._events.scalars(step, prefix, values)
        if means["skipped"]:
            self._console.warn(f"{means['skipped']:.0f} update(s) without finite loss or gradient skipped")
        shown = f"loss {means['loss']:.3f}" + (f", {speed['pairs_per_second']:.1f} pairs/s" if speed else "")
        if self._console.bars:
            self._bar.set_postfix_str(shown)
        else:
            self._console.info(f"epoch {self._epoch(step)}, step {step} of {self._total_steps}: {shown}")

    def validate(self, step: int, state: TrainState, stop: StopRequest) -> dict[str, float]:
        """Scores the validation split and logs scores and some pairs; logs nothing if stopped, and raises Stopped."""
        batches, total = stop.until(self._loader.split("val")), self._loader.num_batches("val")
        batches = self._console.over(batches, total=total, unit="batch", desc="validate")
        with preflight.out_of_memory(**eval_batch_shape(self._config)):
            results = collect_results(self._eval_fn, state.model, batches)
        scores = score_results(results, **task_weights(self._config))
        self._events.scalars(step, "val", scores)
        if "probabilities" in results:
            self._events.pr_curves(step, "val", results["labels"], results["probabilities"])
            from fume_jax.evaluation import plots  # slow to import, which the first step need not wait for

            self._events.image(step, "val/confusion", plots.confusion_chart(results["cls_confusion"].sum(0)))
        if self._config.log.images:
            batch = self._loader.examples("val", self._shown)
            outputs = self._predict_fn(**state.model, batch=batch)
            panel = overlays.pair_panel(*replicate_to_hosts((batch, outputs)), self._config.log.images)
            self._events.image(step, "val/overlays", panel)
        where = f"epoch {self._epoch(step)} of {self._config.train.epochs}, step {step}"
        self._console.info(f"{where}: validation loss {scores['loss']:.3f}\n{epoch_table(scores)}")
        return scores

    def close(self) -> None:
        self._bar.close()

    def _epoch(self, step):
        return -(-step // self._steps_per_epoch)  # from 1


def _hparams(config: ml_collections.ConfigDict) -> dict[str, bool | str | float | int | tuple]:
    """Returns the hyperparameters that distinguish runs; TensorBoard sorts them by name and shows the first."""
    options = get_architecture(config)
    return {
        "model": config.model.name,
        **{name: getattr(options, name) for name in MODEL_OPTIONS},
        **{name: config.model[name] for name in ("dtype", "batch_norm_splits")},
        **{name: config.data[name] for name in ("height", "width", "sampling")},
        "modality_dropout": config.augment.modality_dropout,
        **{f"loss.{name}": value for name, value in config.loss.items()},
        "optimizer": config.optimizer.name,
        **{name: config.optimizer[name] for name in ("learning_rate", "schedule", "warmup_epochs", "weight_decay")},
        **{name: config.train[name] for name in ("batch_size", "epochs", "ema_decay")},
        "seed": config.seed,
    }


def _memory():
    """Returns gigabytes in use: of the first device, if it reports them, and of this process on the host."""
    device = jax.local_devices()[0].memory_stats() or {}
    memory = {"device_peak_gb": device["peak_bytes_in_use"] / 1e9} if "peak_bytes_in_use" in device else {}
    return memory | {"host_gb": psutil.Process().memory_info().rss / 1e9}
