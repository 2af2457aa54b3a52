"""Whether the values of a config make sense, and what its keys say together of the model."""

import functools

import jax.numpy as jnp
import ml_collections

from fume_jax.errors import UserError
from fume_jax.input_pipeline import CACHES, SAMPLINGS
from fume_jax.metrics import HEADLINES
from fume_jax.models import Architecture, architecture
from fume_jax.models.fume import MIN_SIZE
from fume_jax.optimizer import OPTIMIZERS, SCHEDULES
from fume_jax.vocabulary import CLASSES, MASK_CLASSES

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
    blurs = {
        f"augment.{name}.{end}": (config.augment[name][end] % 2 == 1, "an odd number of pixels")
        for name in ("gaussian_blur", "motion_blur")
        for end in ("low", "high")
    }
    monitored = ", ".join(HEADLINES)
    better = "min" if config.early_stopping.metric == "loss" else "max"
    part = config.train.batch_size // max(1, config.train.accumulation)
    rules = {
        "seed": (config.seed >= 0, "at least 0"),
        "model.dtype": (config.model.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
        "model.norm_groups": (
            config.model.norm_groups >= 1 and part % config.model.norm_groups == 0,
            f"a divisor of the {part} pairs that are taken at once",
        ),
        "data.height": (config.data.height >= MIN_SIZE, f"at least {MIN_SIZE}"),
        "data.width": (config.data.width >= MIN_SIZE, f"at least {MIN_SIZE}"),
        "data.sampling": (config.data.sampling in SAMPLINGS, f"one of {', '.join(SAMPLINGS)}"),
        "data.cache": (config.data.cache in CACHES, f"one of {', '.join(CACHES)}"),
        "data.modality_dropout": (0 <= config.data.modality_dropout <= 1, "between 0 and 1"),
        "data.num_threads": (config.data.num_threads >= 1, "at least 1"),
        "data.num_workers": (config.data.num_workers >= 0, "at least 0"),
        "data.timeout_seconds": (config.data.timeout_seconds > 0, "more than 0"),
        "data.prefetch": (config.data.prefetch >= 1, "at least 1"),
        "loss.alpha": (len(config.loss.alpha) == len(CLASSES), f"{len(CLASSES)} weights, one a class"),
        "loss.seg_alpha": (len(config.loss.seg_alpha) == len(MASK_CLASSES), "3 weights, one a mask value"),
        "optimizer.name": (config.optimizer.name in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
        "optimizer.schedule": (config.optimizer.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
        "optimizer.learning_rate": (config.optimizer.learning_rate > 0, "more than 0"),
        "optimizer.final_learning_rate": (config.optimizer.final_learning_rate >= 0, "at least 0"),
        "optimizer.decay_factor": (config.optimizer.decay_factor > 0, "more than 0"),
        "optimizer.b1": (0 <= config.optimizer.b1 < 1, "from 0 to less than 1"),
        "optimizer.b2": (0 <= config.optimizer.b2 < 1, "from 0 to less than 1"),
        "optimizer.clip_norm": (config.optimizer.clip_norm > 0, "more than 0, such as inf"),
        "train.batch_size": (config.train.batch_size >= 1, "at least 1"),
        "train.accumulation": (config.train.accumulation >= 1, "at least 1"),
        "train.ema_decay": (0 <= config.train.ema_decay < 1, "from 0 to less than 1"),
        "train.max_skipped_updates": (config.train.max_skipped_updates >= 0, "at least 0"),
        "early_stopping.patience": (config.early_stopping.patience >= 0, "at least 0"),
        "early_stopping.metric": (config.early_stopping.metric in (*HEADLINES, "loss"), f"one of {monitored}, loss"),
        "early_stopping.mode": (config.early_stopping.mode == better, f"{better} for that metric"),
        "eval.batch_size": (config.eval.batch_size >= 1, "at least 1"),
        "train.epochs": (config.train.epochs >= 1, "at least 1"),
        "optimizer.warmup_epochs": (
            0 <= config.optimizer.warmup_epochs < config.train.epochs,
            "less than train.epochs",
        ),
        "eval.every_epochs": (config.eval.every_epochs >= 1, "at least 1"),
        "log.every_steps": (config.log.every_steps >= 1, "at least 1"),
        "log.pictures": (config.log.pictures >= 0, "at least 0"),
        "checkpoint.best_metric": (config.checkpoint.best_metric in HEADLINES, f"one of {monitored}"),
        "checkpoint.every_epochs": (config.checkpoint.every_epochs >= 1, "at least 1"),
        "checkpoint.keep_every_epochs": (config.checkpoint.keep_every_epochs >= 0, "at least 0"),
        **blurs,
    }
    return [
        f"config.{key} is {functools.reduce(getattr, key.split('.'), config)!r}; expected {expected}"
        for key, (holds, expected) in rules.items()
        if not holds
    ]


def _model_faults(config):
    try:
        options = architecture_of(config)
    except ValueError as error:
        return [f"config.model: {error}"]
    metrics = {
        "checkpoint.best_metric": config.checkpoint.best_metric,
        "early_stopping.metric": config.early_stopping.metric,
    }
    known = headlines(config)
    return [
        f"config.{key} is {metric!r}; a model of {options.tasks} alone has {', '.join(known)}"
        for key, metric in metrics.items()
        if metric in HEADLINES and metric not in known
    ]


def headlines(config: ml_collections.ConfigDict) -> list[str]:
    """The headline metrics that the model of a config has."""
    tasks = architecture_of(config).tasks
    return [name for name, needs in HEADLINES.items() if tasks == "both" or needs <= {tasks}]


def model_options(config: ml_collections.ConfigDict) -> dict[str, str | None]:
    """What the config changes of the model that it names; None is as the name says."""
    return {key: getattr(config.model, key) for key in ("encoder", "fusion", "gas", "tasks")}


def architecture_of(config: ml_collections.ConfigDict) -> Architecture:
    """The options of the model of a config."""
    return architecture(config.model.name, **model_options(config))
