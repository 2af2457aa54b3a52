"""Checks a config and makes the objects that it describes.

A config is an `ml_collections.ConfigDict` with the keys of `configs/fume.py`. `validate_config` names every key whose
value makes no sense; the functions below it read one section each and return plain objects.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import nnx

from fume_jax.data.loader import CACHES, DataOptions
from fume_jax.data.pipeline import SAMPLINGS, ReadOptions
from fume_jax.learning import augment, losses
from fume_jax.learning import optimizer as optimizers
from fume_jax.learning.metrics import HEADLINES
from fume_jax.models import FUME, Architecture, architecture
from fume_jax.models.fume import MIN_SIZE
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, MASK_CLASSES

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# Keys of run folders written by earlier versions: what each is called in this one, and its values where they differ.
OLD_KEYS = {
    "model.encoder": ("model.share_encoder", {"shared": True, "separate": False}),
    "model.norm_groups": ("model.batch_norm_splits", {}),
    "data.modality_dropout": ("augment.modality_dropout", {}),
    "data.cache": ("data.cache", {"disk": "none"}),
    "loss.alpha": ("loss.cls_alpha", {}),
    "loss.gamma": ("loss.cls_gamma", {}),
    "loss.focal_weight": ("loss.seg_focal_weight", {}),
    "loss.dice_weight": ("loss.seg_dice_weight", {}),
    "train.accumulation": ("train.gradient_accumulation_steps", {}),
    "log.pictures": ("log.images", {}),
}
# Keys that earlier versions did not have, and what those did.
NEW_KEYS = {"model.backbone": None}

# What `augment.one_of` chooses from.
_ONE_OF = ("gaussian_noise", "gaussian_blur", "motion_blur")

Faults = Iterator[tuple[bool, str, str]]


def upgrade_values(values: dict) -> dict:
    """Returns the nested values of a config, written by this version or an earlier one, with the keys of this one."""
    sections = {name: keys for name, keys in values.items() if isinstance(keys, dict)}
    flat = NEW_KEYS | {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}
    upgraded = values | {name: {} for name in sections}
    for old_key, value in flat.items():
        new_key, new_values = OLD_KEYS.get(old_key, (old_key, {}))
        section, key = new_key.split(".")
        upgraded.setdefault(section, {})[key] = new_values.get(value, value) if isinstance(value, str) else value
    return upgraded


def validate_config(config: ml_collections.ConfigDict) -> None:
    """Raises UserError, naming every key at fault, unless the values of a config make sense."""
    faults = []
    try:
        for name, check in SECTIONS.items():
            section = config[name] if name else config
            prefix = f"config.{name}." if name else "config."
            faults += [
                f"{prefix}{key} is {_value(section, key)!r}; expected {expected}"
                for holds, key, expected in check(section, config)
                if not holds
            ]
        faults += _model_faults(config)
    except (AttributeError, KeyError) as error:
        raise UserError(f"The config is one of another version; it lacks a key: {error}") from error
    if faults:
        raise UserError("\n".join(faults))


def _value(section, key):
    for part in key.split("."):
        section = section[part]
    return section


def _one_of(value, choices) -> tuple[bool, str]:
    return value in choices, f"one of {', '.join(choices)}"


def _check_run(run, _) -> Faults:
    yield 0 <= run.seed < 2**32, "seed", "from 0 to less than 2**32"


def _check_model(model, config) -> Faults:
    holds, expected = _one_of(model.dtype, DTYPES)
    yield holds, "dtype", expected
    part = config.train.batch_size // max(1, config.train.gradient_accumulation_steps)
    splits = model.batch_norm_splits
    yield (
        splits >= 1 and part % splits == 0,
        "batch_norm_splits",
        f"a divisor of the {part} pairs that are taken at once",
    )


def _check_data(data, _) -> Faults:
    yield data.height >= MIN_SIZE, "height", f"at least {MIN_SIZE}"
    yield data.width >= MIN_SIZE, "width", f"at least {MIN_SIZE}"
    for key, choices in (("sampling", SAMPLINGS), ("cache", CACHES)):
        holds, expected = _one_of(data[key], choices)
        yield holds, key, expected
    yield data.num_threads >= 1, "num_threads", "at least 1"
    yield data.num_workers >= 0, "num_workers", "at least 0"
    yield data.prefetch >= 1, "prefetch", "at least 1"
    yield 0 < data.timeout_seconds < math.inf, "timeout_seconds", "more than 0"


def _check_augment(options, _) -> Faults:
    yield 0 <= options.modality_dropout <= 1, "modality_dropout", "between 0 and 1"
    for name in ("flip", "shift_scale_rotate", "elastic", "one_of", *_ONE_OF, "brightness_contrast", "gamma"):
        yield 0 <= options[name].probability <= 1, f"{name}.probability", "between 0 and 1"
    any_of = options.one_of.probability == 0 or any(options[name].probability > 0 for name in _ONE_OF)
    yield any_of, "one_of.probability", f"0, as {', '.join(_ONE_OF)} all have the probability 0"
    move = options.shift_scale_rotate
    yield 0 <= move.shift <= 1, "shift_scale_rotate.shift", "between 0 and 1, in frame sizes"
    yield 0 <= move.scale < 1, "shift_scale_rotate.scale", "from 0 to less than 1"
    yield 0 <= move.rotate <= 180, "shift_scale_rotate.rotate", "between 0 and 180 degrees"
    # Three points a third of the height from the centre: moved by more, they may come to lie on one line.
    yield 0 <= options.elastic.affine < 1 / 3, "elastic.affine", "from 0 to less than 1/3, in frame heights"
    yield 0 < options.elastic.sigma <= 1, "elastic.sigma", "more than 0 and at most 1, in frame heights"
    yield 0 <= options.elastic.amplitude <= 1, "elastic.amplitude", "between 0 and 1, in frame heights"
    noise = options.gaussian_noise
    yield 0 <= noise.low <= noise.high < math.inf, "gaussian_noise.low", "at least 0 and at most gaussian_noise.high"
    for name in ("gaussian_blur", "motion_blur"):
        low, high = options[name].low, options[name].high
        yield low % 2 == 1 and 3 <= low <= high, f"{name}.low", f"an odd number of pixels from 3 to {name}.high"
        yield high % 2 == 1 and high < MIN_SIZE, f"{name}.high", f"an odd number of pixels below {MIN_SIZE}"
    light = options.brightness_contrast
    yield 0 <= light.brightness <= 1, "brightness_contrast.brightness", "between 0 and 1"
    yield 0 <= light.contrast <= 1, "brightness_contrast.contrast", "between 0 and 1"
    yield 0 < options.gamma.low <= options.gamma.high < math.inf, "gamma.low", "more than 0 and at most gamma.high"


def _check_loss(loss, _) -> Faults:
    for key, names in (("cls_alpha", CLASSES), ("seg_alpha", MASK_CLASSES)):
        holds = len(loss[key]) == len(names) and all(0 <= weight < math.inf for weight in loss[key]) and any(loss[key])
        yield holds, key, f"{len(names)} weights, one for each of {', '.join(names)}, at least 0 and not all 0"
    for key in ("cls_gamma", "seg_gamma", "seg_focal_weight", "seg_dice_weight", "cls_weight", "seg_weight"):
        yield 0 <= loss[key] < math.inf, key, "at least 0"
    yield loss.seg_focal_weight + loss.seg_dice_weight > 0, "seg_dice_weight", "more than 0 where seg_focal_weight is 0"
    yield loss.cls_weight + loss.seg_weight > 0, "seg_weight", "more than 0 where cls_weight is 0"


def _check_optimizer(options, config) -> Faults:
    for key, choices in (("name", optimizers.OPTIMIZERS), ("schedule", optimizers.SCHEDULES)):
        holds, expected = _one_of(options[key], choices)
        yield holds, key, expected
    yield 0 < options.learning_rate < math.inf, "learning_rate", "more than 0"
    yield 0 <= options.final_learning_rate < math.inf, "final_learning_rate", "at least 0"
    yield 0 < options.decay_factor < math.inf, "decay_factor", "more than 0"
    ascending = all(a < b for a, b in zip((0, *options.decay_epochs), options.decay_epochs, strict=False))
    yield ascending, "decay_epochs", "epochs after 0, in ascending order"
    yield 0 <= options.warmup_epochs < config.train.epochs, "warmup_epochs", "less than train.epochs"
    yield 0 <= options.weight_decay < math.inf, "weight_decay", "at least 0"
    yield 0 <= options.b1 < 1, "b1", "from 0 to less than 1"
    yield 0 <= options.b2 < 1, "b2", "from 0 to less than 1"
    yield options.clip_norm > 0, "clip_norm", "more than 0, such as inf"


def _check_train(train, _) -> Faults:
    yield train.batch_size >= 1, "batch_size", "at least 1"
    yield train.gradient_accumulation_steps >= 1, "gradient_accumulation_steps", "at least 1"
    yield train.epochs >= 1, "epochs", "at least 1"
    yield 0 <= train.ema_decay < 1, "ema_decay", "from 0 to less than 1"
    yield train.max_skipped_updates >= 0, "max_skipped_updates", "at least 0"


def _check_early_stopping(options, _) -> Faults:
    yield options.patience >= 0, "patience", "at least 0"
    holds, expected = _one_of(options.metric, (*HEADLINES, "loss"))
    yield holds, "metric", expected
    better = "min" if options.metric == "loss" else "max"
    yield options.mode == better, "mode", f"{better} for that metric"
    yield 0 <= options.min_delta < math.inf, "min_delta", "at least 0"


def _check_eval(options, _) -> Faults:
    yield options.batch_size >= 1, "batch_size", "at least 1"
    yield options.every_epochs >= 1, "every_epochs", "at least 1"


def _check_log(log, _) -> Faults:
    yield log.every_steps >= 1, "every_steps", "at least 1"
    yield log.images >= 0, "images", "at least 0"


def _check_checkpoint(options, _) -> Faults:
    holds, expected = _one_of(options.best_metric, HEADLINES)
    yield holds, "best_metric", expected
    yield options.every_epochs >= 1, "every_epochs", "at least 1"
    yield options.keep_every_epochs >= 0, "keep_every_epochs", "at least 0"


# What checks each section of a config; "" is its top.
SECTIONS: dict[str, Callable[[Any, ml_collections.ConfigDict], Faults]] = {
    "": _check_run,
    "model": _check_model,
    "data": _check_data,
    "augment": _check_augment,
    "loss": _check_loss,
    "optimizer": _check_optimizer,
    "train": _check_train,
    "early_stopping": _check_early_stopping,
    "eval": _check_eval,
    "log": _check_log,
    "checkpoint": _check_checkpoint,
}


def _model_faults(config):
    try:
        options = get_architecture(config)
    except ValueError as error:
        return [f"config.model: {error}"]
    metrics = {
        "checkpoint.best_metric": config.checkpoint.best_metric,
        "early_stopping.metric": config.early_stopping.metric,
    }
    known = headline_metrics(config)
    return [
        f"config.{key} is {metric!r}; a model of {options.tasks} alone has {', '.join(known)}"
        for key, metric in metrics.items()
        if metric in HEADLINES and metric not in known
    ]


def headline_metrics(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the headline metrics that the model of a config has."""
    tasks = get_architecture(config).tasks
    return [name for name, needs in HEADLINES.items() if tasks == "both" or needs <= {tasks}]


def get_architecture(config: ml_collections.ConfigDict) -> Architecture:
    """Returns the options of the model of a config."""
    return architecture(config.model.name, **model_options(config))


def model_options(config: ml_collections.ConfigDict) -> dict[str, str | bool | None]:
    """Returns what the config changes of the model that it names; None is as the name says."""
    return {
        "backbone": config.model.backbone,
        "share_encoder": config.model.share_encoder,
        "fusion": config.model.fusion,
        "gas": config.model.gas,
        "tasks": config.model.tasks,
    }


def create_model(config: ml_collections.ConfigDict) -> FUME:
    """Creates the model with fresh parameters, in training mode."""
    return FUME(get_architecture(config), dtype=DTYPES[config.model.dtype], rngs=nnx.Rngs(config.seed))


def abstract_model(config: ml_collections.ConfigDict) -> FUME:
    """Returns the model without memory for its parameters: shapes and dtypes only."""
    return nnx.clone(_abstract_model(get_architecture(config), config.model.dtype))


@functools.cache
def _abstract_model(options, dtype):
    """Made once: modules are slow to trace, and all who ask change only the mode of theirs."""
    return nnx.eval_shape(lambda: FUME(options, dtype=DTYPES[dtype], rngs=nnx.Rngs(0)))


def create_optimizer(
    config: ml_collections.ConfigDict, steps_per_epoch: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
    """Creates the learning-rate schedule and the optimiser that follows it."""
    options = config.optimizer
    schedule = optimizers.create_schedule(
        options.schedule,
        learning_rate=options.learning_rate,
        final_learning_rate=options.final_learning_rate,
        warmup_steps=int(options.warmup_epochs * steps_per_epoch),
        total_steps=config.train.epochs * steps_per_epoch,
        decay_steps=[round(epoch * steps_per_epoch) for epoch in options.decay_epochs],
        decay_factor=options.decay_factor,
    )
    tx = optimizers.create_optimizer(
        options.name,
        schedule,
        weight_decay=options.weight_decay,
        b1=options.b1,
        b2=options.b2,
        clip_norm=options.clip_norm,
    )
    return schedule, tx


def steps_per_epoch(config: ml_collections.ConfigDict, examples: int) -> int:
    """Returns how many batches hold about as many examples as the training split."""
    return int(np.ceil(examples / config.train.batch_size))


def create_example_losses(config: ml_collections.ConfigDict) -> Callable:
    """Creates the losses of every example, a function of outputs and batch."""
    return functools.partial(
        losses.example_losses,
        cls_alpha=tuple(config.loss.cls_alpha),
        cls_gamma=config.loss.cls_gamma,
        seg_alpha=tuple(config.loss.seg_alpha),
        seg_gamma=config.loss.seg_gamma,
        seg_focal_weight=config.loss.seg_focal_weight,
        seg_dice_weight=config.loss.seg_dice_weight,
    )


def create_loss_fn(config: ml_collections.ConfigDict) -> Callable:
    """Creates the training objective, a function of outputs and batch."""
    losses_fn = create_example_losses(config)
    return functools.partial(losses.multi_task_loss, losses_fn=losses_fn, **task_weights(config))


def task_weights(config: ml_collections.ConfigDict) -> dict[str, float]:
    """Returns the weights of the two tasks in the loss."""
    return {"cls_weight": config.loss.cls_weight, "seg_weight": config.loss.seg_weight}


def create_augmentation(config: ml_collections.ConfigDict) -> Sequence[augment.RandomOperation]:
    """Creates the operations that change a training example, in order."""
    options = config.augment
    noise, blur, smear = options.gaussian_noise, options.gaussian_blur, options.motion_blur
    degradations = (
        augment.GaussianNoise(noise.probability, low=noise.low, high=noise.high),
        augment.GaussianBlur(blur.probability, low=blur.low, high=blur.high),
        augment.MotionBlur(smear.probability, low=smear.low, high=smear.high),
    )
    move, bend, light = options.shift_scale_rotate, options.elastic, options.brightness_contrast
    operations = (
        augment.HorizontalFlip(options.flip.probability),
        augment.ShiftScaleRotate(move.probability, shift=move.shift, scale=move.scale, rotate=move.rotate),
        augment.Elastic(bend.probability, affine=bend.affine, sigma=bend.sigma, amplitude=bend.amplitude),
        augment.OneOf(options.one_of.probability, operations=degradations),
        augment.BrightnessContrast(light.probability, brightness=light.brightness, contrast=light.contrast),
        augment.Gamma(options.gamma.probability, low=options.gamma.low, high=options.gamma.high),
        augment.ModalityDropout(options.modality_dropout),
    )
    return tuple(operation for operation in operations if operation.probability > 0)


def data_options(config: ml_collections.ConfigDict) -> DataOptions:
    """Returns what batches hold and how they are read."""
    return DataOptions(
        height=config.data.height,
        width=config.data.width,
        train_batch_size=config.train.batch_size,
        eval_batch_size=config.eval.batch_size,
        sampling=config.data.sampling,
        augmentation=create_augmentation(config),
        seed=config.seed,
        cache=config.data.cache,
        read=ReadOptions(
            num_threads=config.data.num_threads,
            num_workers=config.data.num_workers,
            prefetch=config.data.prefetch,
            timeout_seconds=float(config.data.timeout_seconds),
        ),
    )


def train_batch_shape(config: ml_collections.ConfigDict) -> dict[str, int]:
    """Returns pairs of a training batch, and pixels of their frames."""
    return {"batch_size": config.train.batch_size, "height": config.data.height, "width": config.data.width}


def eval_batch_shape(config: ml_collections.ConfigDict) -> dict:
    """Returns the same of a batch in evaluation, and the key that sets how many pairs it has."""
    return train_batch_shape(config) | {"batch_size": config.eval.batch_size, "keys": ("config.eval.batch_size",)}
