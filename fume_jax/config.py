"""Checks a config and creates the objects that it describes.

A config is an `ml_collections.ConfigDict` with the keys of `configs/fume.py`. `validate_config` names every key at
fault; the functions below it read one section each and return plain objects.
"""

import contextlib
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import jax.numpy as jnp
import ml_collections
import optax
from flax import nnx

from fume_jax.data.dataset import Dataset
from fume_jax.data.folds import FoldedDataset, read_folds
from fume_jax.data.loader import CACHES
from fume_jax.data.pipeline import SAMPLINGS, DataOptions, ReadOptions
from fume_jax.learning import augment, losses
from fume_jax.learning import optimizer as optimizers
from fume_jax.learning.metrics import HEADLINES
from fume_jax.models import FUME, Architecture, architecture
from fume_jax.models.fume import MIN_SIZE
from fume_jax.runtime.cli import local_path
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, MASK_CLASSES

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
MODEL_OPTIONS = ("backbone", "share_encoder", "fusion", "gas", "tasks", "gas_margin")

# Keys whose values are paths.
PATH_KEYS = ("data.path", "data.folds", "init_from")
# The largest height and width of frames: OpenCV does not warp larger ones.
MAX_SIZE = 2**14

# Keys in run folders of earlier versions: the present key, and the present value of those values that changed.
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
# Keys that earlier versions lacked, with the value that stands for their behaviour.
NEW_KEYS = {
    "model.backbone": None,
    "model.gas_margin": 0.0,
    "data.folds": None,
    "data.fold": 0,
    "augment.invert": {"probability": 0.0},
    "loss.seg_dice_smooth": 1.0,
}

CHOICES = {
    "model.dtype": DTYPES,
    "data.sampling": SAMPLINGS,
    "data.cache": CACHES,
    "optimizer.name": optimizers.OPTIMIZERS,
    "optimizer.schedule": optimizers.SCHEDULES,
    "early_stopping.metric": (*HEADLINES, "loss"),
    "checkpoint.best_metric": HEADLINES,
}
# The expected value in words, its check, and the keys with that range. NaN passes no check.
RANGES = (
    ("from 0 to less than 2**32", lambda x: 0 <= x < 2**32, "seed"),
    (f"from {MIN_SIZE} to {MAX_SIZE}", lambda x: MIN_SIZE <= x <= MAX_SIZE, "data.height data.width"),
    (
        "at least 0",
        lambda x: 0 <= x < math.inf,
        """model.gas_margin loss.cls_gamma loss.seg_gamma loss.seg_focal_weight loss.seg_dice_weight loss.cls_weight
        loss.seg_weight data.fold optimizer.final_learning_rate optimizer.weight_decay train.max_skipped_updates
        early_stopping.patience early_stopping.min_delta log.images checkpoint.keep_every_epochs""",
    ),
    (
        "from 1 to less than 2**31",
        lambda x: 1 <= x < 2**31,
        """train.batch_size train.gradient_accumulation_steps train.epochs eval.batch_size eval.every_epochs
        log.every_steps checkpoint.every_epochs""",
    ),
    ("from 1 to 1024", lambda x: 1 <= x <= 1024, "data.num_threads data.prefetch"),
    ("from 0 to 1024", lambda x: 0 <= x <= 1024, "data.num_workers"),
    (
        "more than 0",
        lambda x: 0 < x < math.inf,
        "data.timeout_seconds loss.seg_dice_smooth optimizer.learning_rate optimizer.decay_factor",
    ),
    ("more than 0, such as inf", lambda x: x > 0, "optimizer.clip_norm"),
    (
        "between 0 and 1",
        lambda x: 0 <= x <= 1,
        """augment.modality_dropout augment.flip.probability augment.shift_scale_rotate.probability
        augment.elastic.probability augment.one_of.probability augment.gaussian_noise.probability
        augment.gaussian_blur.probability augment.motion_blur.probability augment.brightness_contrast.probability
        augment.brightness_contrast.brightness augment.brightness_contrast.contrast augment.gamma.probability
        augment.invert.probability""",
    ),
    ("from 0 to less than 1", lambda x: 0 <= x < 1, "augment.shift_scale_rotate.scale optimizer.b1 optimizer.b2"),
    ("from 0 to less than 1", lambda x: 0 <= x < 1, "train.ema_decay"),
    ("between 0 and 1, in frame sizes", lambda x: 0 <= x <= 1, "augment.shift_scale_rotate.shift"),
    ("between 0 and 180 degrees", lambda x: 0 <= x <= 180, "augment.shift_scale_rotate.rotate"),
    # Three points lie a third of the height from the centre: moved further, they may come to lie on one line.
    ("from 0 to less than 1/3, in frame heights", lambda x: 0 <= x < 1 / 3, "augment.elastic.affine"),
    ("more than 0 and at most 1, in frame heights", lambda x: 0 < x <= 1, "augment.elastic.sigma"),
    ("between 0 and 1, in frame heights", lambda x: 0 <= x <= 1, "augment.elastic.amplitude"),
)


def upgrade_values(values: dict) -> dict:
    """Returns the nested values of a config of this version or an earlier one with the keys of this version."""
    sections = {name: keys for name, keys in values.items() if isinstance(keys, dict)}
    flat = {f"{name}.{key}": value for name, keys in sections.items() for key, value in keys.items()}
    upgraded = values | {name: {} for name in sections}
    for old_key, value in (flat | NEW_KEYS | flat).items():  # in the order of `flat`
        new_key, new_values = OLD_KEYS.get(old_key, (old_key, {}))
        section, key = new_key.split(".")
        upgraded.setdefault(section, {})[key] = new_values.get(value, value) if isinstance(value, str) else value
    return upgraded


def with_local_paths(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns a config that a file made with `~` at the beginning of its paths replaced by the home folder.

    Raises UserError if the file made no config, or a path is an address such as gs://NAME.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(f"The config is a {type(config).__name__}; expected get_config() to return a ConfigDict.")
    with contextlib.suppress(AttributeError, KeyError):  # a missing key is named by `validate_config`
        for key in PATH_KEYS:
            if isinstance(path := config[key], str):
                config.update_from_flattened_dict({key: local_path(path, f"config.{key}")})
    return config


def validate_config(config: ml_collections.ConfigDict) -> None:
    """Raises UserError, naming every key at fault, unless the values of a config make sense."""
    faults = []
    try:
        for key, holds, expected in _checks(config):
            if not holds:
                faults.append(f"config.{key} is {config[key]!r}; expected {expected}")
        faults += _model_faults(config)
    except (AttributeError, KeyError) as error:
        raise UserError(f"The config is one of another version; it lacks a key: {error}") from error
    except TypeError as error:  # of a value that depends on others; a number that is none was named before
        faults = faults or [f"The config has a value of another type than expected: {error}"]
    if faults:
        raise UserError("\n".join(faults))


def _checks(config) -> Iterator[tuple[str, bool, str]]:
    """Yields every checked key, whether its value makes sense, and the expected value in words."""
    for key, choices in CHOICES.items():
        yield key, config[key] in choices, f"one of {', '.join(choices)}"
    for expected, check, keys in RANGES:
        yield from (
            (key, isinstance(config[key], int | float) and check(config[key]), expected) for key in keys.split()
        )

    # Values that depend on others.
    splits, train = config.model.batch_norm_splits, config.train
    part = train.batch_size // max(1, train.gradient_accumulation_steps)
    divides = splits >= 1 and part % splits == 0
    yield "model.batch_norm_splits", divides, f"a divisor of the {part} pairs of one forward pass"
    yield "data.fold", config.data.fold == 0 or config.data.folds is not None, "0 without data.folds"
    options = config.augment
    names = ("gaussian_noise", "gaussian_blur", "motion_blur")
    possible = options.one_of.probability == 0 or any(options[name].probability > 0 for name in names)
    yield "augment.one_of.probability", possible, f"0, as {', '.join(names)} all have the probability 0"
    noise, blurs, gamma = options.gaussian_noise, ("gaussian_blur", "motion_blur"), options.gamma
    holds = 0 <= noise.low <= noise.high < math.inf
    yield "augment.gaussian_noise.low", holds, "at least 0 and at most gaussian_noise.high"
    yield "augment.gamma.low", 0 < gamma.low <= gamma.high < math.inf, "more than 0 and at most gamma.high"
    for name in blurs:
        low, high = options[name].low, options[name].high
        expected = f"an odd number of pixels from 3 to {name}.high"
        yield f"augment.{name}.low", low % 2 == 1 and 3 <= low <= high, expected
        expected = f"an odd number of pixels below {MIN_SIZE}"
        yield f"augment.{name}.high", high % 2 == 1 and high < MIN_SIZE, expected
    loss = config.loss
    for key, names in (("cls_alpha", CLASSES), ("seg_alpha", MASK_CLASSES)):
        holds = len(loss[key]) == len(names) and all(0 <= weight < math.inf for weight in loss[key]) and any(loss[key])
        expected = f"{len(names)} weights, one for each of {', '.join(names)}, at least 0 and not all 0"
        yield f"loss.{key}", holds, expected
    enough = loss.seg_focal_weight + loss.seg_dice_weight > 0
    yield "loss.seg_dice_weight", enough, "more than 0 where seg_focal_weight is 0"
    yield "loss.seg_weight", loss.cls_weight + loss.seg_weight > 0, "more than 0 where cls_weight is 0"
    optimizer, stopping = config.optimizer, config.early_stopping
    ascending = all(a < b for a, b in itertools.pairwise((0, *optimizer.decay_epochs)))
    yield "optimizer.decay_epochs", ascending, "epochs after 0, in ascending order"
    yield "optimizer.warmup_epochs", 0 <= optimizer.warmup_epochs < train.epochs, "less than train.epochs"
    better = "min" if stopping.metric == "loss" else "max"
    yield "early_stopping.mode", stopping.mode == better, f"{better} for that metric"


def _model_faults(config):
    try:
        options = get_architecture(config)
    except ValueError as error:
        return [f"config.model: {error}"]
    known = headline_metrics(config)
    return [
        f"config.{key} is {config[key]!r}; a model of {options.tasks} alone has {', '.join(known)}"
        for key in ("checkpoint.best_metric", "early_stopping.metric")
        if config[key] in HEADLINES and config[key] not in known
    ]


def headline_metrics(config: ml_collections.ConfigDict) -> list[str]:
    """Returns the headline metrics that the model of a config has."""
    tasks = get_architecture(config).tasks
    return [name for name, needs in HEADLINES.items() if tasks == "both" or needs <= {tasks}]


def get_architecture(config: ml_collections.ConfigDict) -> Architecture:
    """Returns the options of the model of a config."""
    return architecture(config.model.name, **model_options(config))


def model_options(config: ml_collections.ConfigDict) -> dict[str, str | bool | None]:
    """Returns the options that a config changes of its named model; None changes nothing."""
    return {key: config.model[key] for key in MODEL_OPTIONS}


def create_model(config: ml_collections.ConfigDict) -> FUME:
    """Creates the model with fresh parameters, in training mode."""
    return FUME(get_architecture(config), dtype=DTYPES[config.model.dtype], rngs=nnx.Rngs(config.seed))


def abstract_model(config: ml_collections.ConfigDict) -> FUME:
    """Returns the model without memory for its parameters: shapes and dtypes only."""
    return nnx.clone(_abstract_model(get_architecture(config), config.model.dtype))


@functools.cache
def _abstract_model(options, dtype):
    # Cached: modules are slow to trace, and callers change only the mode of their copy.
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
    weight_decay, clip_norm = options.weight_decay, options.clip_norm
    return schedule, optimizers.create_optimizer(
        options.name, schedule, weight_decay=weight_decay, b1=options.b1, b2=options.b2, clip_norm=clip_norm
    )


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
        seg_dice_smooth=config.loss.seg_dice_smooth,
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
        augment.Invert(options.invert.probability),
        augment.ModalityDropout(options.modality_dropout),
    )
    return tuple(operation for operation in operations if operation.probability > 0)


def data_options(config: ml_collections.ConfigDict) -> DataOptions:
    """Returns the options of batches and of reading them."""
    data = config.data
    return DataOptions(
        height=data.height,
        width=data.width,
        train_batch_size=config.train.batch_size,
        eval_batch_size=config.eval.batch_size,
        sampling=data.sampling,
        augmentation=create_augmentation(config),
        seed=config.seed,
        cache=data.cache,
        read=ReadOptions(data.num_threads, data.num_workers, data.prefetch, float(data.timeout_seconds)),
        every_class=get_architecture(config).classifies,
    )


def open_dataset(config: ml_collections.ConfigDict) -> Dataset | FoldedDataset:
    """Opens the dataset of a config with its own splits, or with those of a fold, see `fume_jax.data.folds`.

    Raises UserError if there is no dataset or no table of its folds, or one of them is damaged.
    """
    dataset = Dataset(config.data.path)
    if config.data.folds is None:
        return dataset
    return FoldedDataset(dataset, read_folds(config.data.folds), config.data.fold)


def train_batch_shape(config: ml_collections.ConfigDict) -> dict[str, int]:
    """Returns the number of pairs in a training batch, and the height and width of their frames in pixels."""
    return {"batch_size": config.train.batch_size, "height": config.data.height, "width": config.data.width}


def eval_batch_shape(config: ml_collections.ConfigDict) -> dict:
    """Returns the same of a batch in evaluation, and the key that sets its number of pairs."""
    return train_batch_shape(config) | {"batch_size": config.eval.batch_size, "keys": ("config.eval.batch_size",)}
