"""The training loop."""

import contextlib
import functools

import jax
import ml_collections
import numpy as np

from fume_jax import build, evaluation, sharding
from fume_jax.checkpoint import Checkpoints, save_config, with_sharding
from fume_jax.errors import DONE, RUN_AGAIN, UserError
from fume_jax.input_pipeline import Dataset
from fume_jax.models import count_parameters
from fume_jax.monitoring import Monitor
from fume_jax.stopping import StopRequest
from fume_jax.train_step import create_train_state, jit_train_step


def train(config: ml_collections.ConfigDict, workdir: str, stop: StopRequest) -> int:
    """Trains a model, or goes on where the run in `workdir` stopped, then scores its best checkpoint.

    The run folder holds `config.json`, `checkpoints/STEP/`, `events/`, `metrics.json` and `pictures/`.

    Returns:
      `DONE`, or `RUN_AGAIN` if `stop` was requested before the last step.

    Raises:
      UserError: if the config cannot be trained as it is, `workdir` holds a run of another config, or the loss is no
        longer finite.
    """
    # Devices and data.
    build.check(config)
    mesh = sharding.create_mesh()
    sharding.check_batch_size("config.train.batch_size", config.train.batch_size, mesh)
    dataset = Dataset(config.data.path)
    save_config(config, workdir)

    # Model, optimiser and state.
    steps_per_epoch = build.steps_per_epoch(config, len(dataset.split("train")))
    total_steps = config.train.epochs * steps_per_epoch
    schedule, tx = build.optimizer(config, steps_per_epoch)
    create_state = jax.jit(lambda: create_train_state(build.model(config), tx), out_shardings=sharding.replicated(mesh))
    model = build.abstract_model(config)
    train_fn = jit_train_step(model, tx, build.loss_fn(config), config.seed)
    eval_fn, predict_fn = build.eval_and_predict_fns(config)

    # A run starts where its last checkpoint stopped, or from nothing.
    checkpoints = Checkpoints(workdir, metric=config.checkpoint.best_metric)
    start_step = checkpoints.latest_step or 0
    if checkpoints.latest_step is None:
        state = create_state()
    else:
        abstract_state = with_sharding(jax.eval_shape(create_state), sharding.replicated(mesh))
        state = checkpoints.restore(abstract_state, start_step)
    monitor = Monitor(
        workdir,
        start_step=start_step,
        total_steps=total_steps,
        batch_size=config.train.batch_size,
        progress=config.log.progress,
    )
    monitor.say(_description(config, model, total_steps, start_step))
    if dataset.leak:
        monitor.say(f"WARNING: {dataset.leak}")
    val_batches = functools.partial(build.evaluation_batches, config, dataset, mesh, "val")

    # Loop. Whatever ends it, what is being saved is saved.
    step, since_log = start_step, []
    batches = build.training_batches(config, dataset, mesh, start_step)
    with contextlib.closing(checkpoints), contextlib.closing(monitor):
        for step, batch in zip(range(start_step + 1, total_steps + 1), batches, strict=False):
            state, metrics = train_fn(state, batch)
            # Waiting for the step before this one keeps the device busy, and batches from piling up on it.
            jax.block_until_ready(since_log[-1:])
            since_log.append(metrics)
            monitor.step_done()

            evaluating = step == total_steps or step % (config.eval.every_epochs * steps_per_epoch) == 0
            if evaluating or step % config.log.every_steps == 0:
                monitor.scalars(step, "train", _mean(since_log, step) | {"learning_rate": float(schedule(step - 1))})
                since_log = []
            if evaluating:
                scores = _validate(eval_fn, predict_fn, state, val_batches, monitor, config.log.pictures)
                monitor.say(_epoch_line(step // steps_per_epoch, scores))
                checkpoints.save(state, scores)
            if stop.requested:
                break
        last_checkpoint = checkpoints.latest_step or 0

    if step < total_steps:
        print(f"stopped after step {step}; the same command goes on after step {last_checkpoint}")
        return RUN_AGAIN
    evaluation.evaluate_run(config, workdir)
    return DONE


def _description(config, model, total_steps, start_step):
    return (
        f"{jax.device_count()} {jax.devices()[0].device_kind} device(s), {config.model.name} of "
        f"{count_parameters(model):,} parameters, batch {config.train.batch_size}, {total_steps} steps on "
        f"{config.data.path}"
    ) + (f", going on after step {start_step}" if start_step else "")


def _validate(eval_fn, predict_fn, state, val_batches, monitor, pictures):
    """Scores the validation split and shows the scores, and some pairs, in TensorBoard."""
    model = {"params": state.params, "batch_stats": state.batch_stats}
    scores = evaluation.score(evaluation.count(eval_fn, model, val_batches()))
    monitor.scalars(int(state.step), "val", scores)
    if pictures:
        panel = evaluation.overlay_panel(predict_fn, model, val_batches(), pictures)
        monitor.picture(int(state.step), "val/overlays", panel)
    return scores


def _mean(since_log, step):
    """Mean of the metrics of some steps, the last of which is `step`; stops the run unless all losses are finite."""
    values = jax.device_get(since_log)
    if not np.isfinite([v["loss"] for v in values]).all():
        raise UserError(
            f"The loss is not finite between steps {step - len(values) + 1} and {step}. Lower "
            "--config.optimizer.learning_rate or --config.optimizer.clip_norm, in another --workdir."
        )
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


def _epoch_line(epoch, scores):
    shown = ("loss", "iou_gas", "mean_iou", "balanced_accuracy")
    return f"epoch {epoch:>4}  " + "  ".join(f"{n} {scores[n]:.3f}" for n in shown if n in scores)
