"""The objects that a config describes."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from fume_jax import augment, input_pipeline, losses, sharding, train_step
from fume_jax.checkpoint import Checkpoints, with_sharding
from fume_jax.errors import UserError
from fume_jax.input_pipeline import SAMPLINGS
from fume_jax.metrics import HEADLINES
from fume_jax.models import FUME, architecture
from fume_jax.models.fume import MIN_SIZE
from fume_jax.optimizer import create_optimizer, create_schedule
from fume_jax.vocabulary import CLASSES

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError, naming every key at fault, unless the values of a config make sense."""
    try:
        faults = _model_faults(config) + _faults(config)
    except AttributeError as error:
        raise UserError(f"The config is one of another version; it lacks a key: {error}") from error
    if faults:
        raise UserError("\n".join(faults))


def _faults(config):
    rules = {
        "seed": (config.seed >= 0, "at least 0"),
        "model.dtype": (config.model.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
        "data.height": (config.data.height >= MIN_SIZE, f"at least {MIN_SIZE}"),
        "data.width": (config.data.width >= MIN_SIZE, f"at least {MIN_SIZE}"),
        "data.sampling": (config.data.sampling in SAMPLINGS, f"one of {', '.join(SAMPLINGS)}"),
        "data.modality_dropout": (0 <= config.data.modality_dropout <= 1, "between 0 and 1"),
        "data.num_threads": (config.data.num_threads >= 1, "at least 1"),
        "data.num_workers": (config.data.num_workers >= 0, "at least 0"),
        "data.timeout_seconds": (config.data.timeout_seconds > 0, "more than 0"),
        "data.prefetch": (config.data.prefetch >= 1, "at least 1"),
        "loss.alpha": (len(config.loss.alpha) == len(CLASSES), f"{len(CLASSES)} weights, one a class"),
        "train.batch_size": (config.train.batch_size >= 1, "at least 1"),
        "eval.batch_size": (config.eval.batch_size >= 1, "at least 1"),
        "train.epochs": (config.train.epochs >= 1, "at least 1"),
        "optimizer.warmup_epochs": (
            0 <= config.optimizer.warmup_epochs < config.train.epochs,
            "less than train.epochs",
        ),
        "eval.every_epochs": (config.eval.every_epochs >= 1, "at least 1"),
        "log.every_steps": (config.log.every_steps >= 1, "at least 1"),
        "log.pictures": (config.log.pictures >= 0, "at least 0"),
        "checkpoint.best_metric": (config.checkpoint.best_metric in HEADLINES, f"one of {', '.join(HEADLINES)}"),
    }
    return [
        f"config.{key} is {functools.reduce(getattr, key.split('.'), config)!r}; expected {expected}"
        for key, (holds, expected) in rules.items()
        if not holds
    ]


def _model_faults(config):
    try:
        options = _architecture(config)
    except ValueError as error:
        return [f"config.model: {error}"]
    metric, tasks = config.checkpoint.best_metric, options.tasks
    if metric in HEADLINES and tasks != "both" and not HEADLINES[metric] <= {tasks}:
        known = [name for name, needs in HEADLINES.items() if needs <= {tasks}]
        return [f"config.checkpoint.best_metric is {metric!r}; a model of {tasks} alone has {', '.join(known)}"]
    return []


def model_options(config: ml_collections.ConfigDict) -> dict[str, str | None]:
    """What the config changes of the model that it names; None is as the name says."""
    return {key: getattr(config.model, key) for key in ("encoder", "fusion", "gas", "tasks")}


def _architecture(config):
    return architecture(config.model.name, **model_options(config))


def model(config: ml_collections.ConfigDict) -> FUME:
    """The model with fresh parameters."""
    return FUME(_architecture(config), dtype=DTYPES[config.model.dtype], rngs=nnx.Rngs(config.seed))


def abstract_model(config: ml_collections.ConfigDict) -> FUME:
    """The model without memory for its parameters: shapes and dtypes only."""
    return nnx.eval_shape(lambda: model(config))


def optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """The learning rate of every step, and the optimiser that follows it."""
    options = config.optimizer
    schedule = create_schedule(
        learning_rate=options.learning_rate,
        final_learning_rate=options.final_learning_rate,
        warmup_steps=round(options.warmup_epochs * steps_per_epoch),
        total_steps=config.train.epochs * steps_per_epoch,
    )
    tx = create_optimizer(
        schedule, weight_decay=options.weight_decay, b1=options.b1, b2=options.b2, clip_norm=options.clip_norm
    )
    return schedule, tx


def loss_fn(config: ml_collections.ConfigDict) -> Callable:
    """The training objective, a function of outputs and batch."""
    return functools.partial(losses.multi_task_loss, **config.loss.to_dict() | {"alpha": tuple(config.loss.alpha)})


def augmentation(config: ml_collections.ConfigDict) -> Sequence[Callable]:
    """What changes a training example, in order."""
    options = config.augment
    degradations = (
        augment.GaussianNoise(**options.gaussian_noise),
        augment.GaussianBlur(**options.gaussian_blur),
        augment.MotionBlur(**options.motion_blur),
    )
    operations = (
        augment.HorizontalFlip(**options.flip),
        augment.ShiftScaleRotate(**options.shift_scale_rotate),
        augment.Elastic(**options.elastic),
        augment.OneOf(**options.one_of, operations=degradations),
        augment.BrightnessContrast(**options.brightness_contrast),
        augment.Gamma(**options.gamma),
        augment.ModalityDropout(config.data.modality_dropout),
    )
    return tuple(operation for operation in operations if operation.probability > 0)


def training_batches(
    config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset, mesh: Mesh, start_step: int
) -> Iterator[dict[str, jax.Array]]:
    """Endless training batches on the devices of the mesh, from `start_step` on."""
    batches = input_pipeline.training_batches(
        dataset,
        split="train",
        batch_size=config.train.batch_size,
        height=config.data.height,
        width=config.data.width,
        sampling=config.data.sampling,
        augmentation=augmentation(config),
        seed=config.seed,
        start_step=start_step,
        reading=_reading(config.data),
    )
    return sharding.to_devices(batches, mesh)


def evaluation_batches(
    config: ml_collections.ConfigDict, dataset: input_pipeline.Dataset, mesh: Mesh, split: str
) -> Iterator[dict[str, jax.Array]]:
    """One pass over a split on the devices of the mesh, in batches rounded up to what they can share."""
    batches = input_pipeline.evaluation_batches(
        dataset,
        split=split,
        batch_size=-(-config.eval.batch_size // mesh.size) * mesh.size,
        height=config.data.height,
        width=config.data.width,
        reading=_reading(config.data),
    )
    return sharding.to_devices(batches, mesh)


def _reading(options):
    return input_pipeline.Reading(
        options.num_threads, options.num_workers, options.prefetch, float(options.timeout_seconds)
    )


def eval_and_predict_fns(config: ml_collections.ConfigDict) -> tuple[Callable, Callable]:
    """Compiled `eval_step` and `predict_step`, functions of (params, batch_stats, batch)."""
    network = abstract_model(config)
    network.eval()
    graphdef, _, _ = train_step.split_model(network)
    eval_step = functools.partial(train_step.eval_step, graphdef=graphdef, loss_fn=loss_fn(config))
    predict_step = functools.partial(train_step.predict_step, graphdef=graphdef)
    return jax.jit(eval_step), jax.jit(predict_step)


def best_model(config: ml_collections.ConfigDict, workdir: str, mesh: Mesh) -> tuple[dict, int]:
    """`params` and `batch_stats` of a run's best checkpoint, on the mesh, and its step.

    Raises:
      UserError: if the run has no checkpoint yet, or its config is one of another version.
    """
    check(config)
    step = None
    if (Path(workdir) / "checkpoints").is_dir():
        checkpoints = Checkpoints(workdir, metric=config.checkpoint.best_metric, read_only=True)
        step = checkpoints.best_step
    if step is None:
        raise UserError(f"{workdir} has no checkpoint yet; train it first with python -m fume_jax.main.")
    _, params, batch_stats = train_step.split_model(abstract_model(config))
    abstract = with_sharding({"params": params, "batch_stats": batch_stats}, sharding.replicated(mesh))
    restored = checkpoints.restore_model(abstract, step)
    checkpoints.close()
    return restored, step


def steps_per_epoch(config: ml_collections.ConfigDict, examples: int) -> int:
    """Batches that hold about as many examples as the training split."""
    return int(np.ceil(examples / config.train.batch_size))
