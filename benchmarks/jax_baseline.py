"""Inference and the training step in JAX on one batch of noise, compiled ahead. Needs jax, flax and optax alone."""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import fume_jax
from fume_jax.learning import augment
from fume_jax.learning.losses import example_losses, multi_task_loss
from fume_jax.learning.optimizer import create_optimizer
from fume_jax.learning.step import create_train_state, flatten_state, jit_train_step, predict_step, split_model
from fume_jax.models import create_model, depthwise
from fume_jax.schema import GASES, MASK_CLASSES, batch_spec

# Of the pretrained model: the keys of configs/fume.py, which needs more libraries to be read.
RECIPE = json.loads((Path(fume_jax.__file__).parent / "assets" / "config.json").read_text())
EPOCH_PAIRS = 4383  # of training, in the published dataset


def random_batch(batch_size: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Returns pairs of noise on the host, all of both gases."""
    rng, spec = np.random.default_rng(0), batch_spec(batch_size, height, width)
    batch = {name: np.ones(x.shape, x.dtype) for name, x in spec.items()}
    for gas in GASES:
        batch[f"{gas}_frame"] = rng.uniform(-1, 1, (batch_size, height, width, 1)).astype(np.float32)
        batch[f"{gas}_mask"] = rng.integers(0, len(MASK_CLASSES), (batch_size, height, width), np.int32)
    return batch


@contextlib.contextmanager
def depthwise_lowering(name: str | None) -> Iterator[None]:
    """Traces depthwise convolutions inside the context with one implementation for all platforms; None changes none."""
    before = depthwise.LOWERING
    depthwise.LOWERING = {"default": name} if name else before
    try:
        yield
    finally:
        depthwise.LOWERING = before


def create_augmentation() -> tuple[augment.RandomOperation, ...]:
    """Creates the operations of the recipe, as `fume_jax.config.create_augmentation` does."""
    options = RECIPE["augment"]
    blurs = augment.GaussianBlur(**options["gaussian_blur"]), augment.MotionBlur(**options["motion_blur"])
    operations = (
        augment.HorizontalFlip(**options["flip"]),
        augment.ShiftScaleRotate(**options["shift_scale_rotate"]),
        augment.Elastic(**options["elastic"]),
        augment.OneOf(**options["one_of"], operations=(augment.GaussianNoise(**options["gaussian_noise"]), *blurs)),
        augment.BrightnessContrast(**options["brightness_contrast"]),
        augment.Gamma(**options["gamma"]),
        augment.ModalityDropout(options["modality_dropout"]),
    )
    return tuple(operation for operation in operations if operation.probability > 0)


def loss_fn(outputs: dict[str, jax.Array], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Computes the objective of the recipe."""
    weights = {key: RECIPE["loss"][key] for key in ("cls_weight", "seg_weight")}
    options = {key: value for key, value in RECIPE["loss"].items() if key not in weights}
    return multi_task_loss(outputs, batch, losses_fn=functools.partial(example_losses, **options), **weights)


class Compiled:
    """A jitted function compiled for some arguments; `lowering` is that of `depthwise_lowering`."""

    def __init__(self, jitted, arguments, dtype: str, lowering: str | None):
        self.dtype = dtype
        with depthwise_lowering(lowering):
            self.lowered = jitted.lower(*arguments)
        self.compiled = self.lowered.compile()
        memory = self.compiled.memory_analysis()
        self.memory_bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        self.memory_bytes += memory.output_size_in_bytes - memory.alias_size_in_bytes


class Inference(Compiled):
    """Computes the logits of one batch at every call."""

    def __init__(self, batch, dtype="float32", lowering=None, backbone=None):
        create = _create_model_fn(dtype, backbone)
        model = nnx.eval_shape(create)
        model.eval()
        predict_fn = jax.jit(functools.partial(predict_step, graphdef=split_model(model)[0]))
        self._arguments = *jax.jit(lambda: split_model(create())[1:])(), jax.device_put(batch)
        super().__init__(predict_fn, self._arguments, dtype, lowering)

    def __call__(self):
        return self.compiled(*self._arguments)


class TrainingStep(Compiled):
    """Takes a training step at every call, on one batch unless another is given; returns the metrics."""

    def __init__(self, batch, dtype="float32", lowering=None, backbone=None):
        create, options = _create_model_fn(dtype, backbone), RECIPE["optimizer"]
        others = {key: options[key] for key in ("weight_decay", "b1", "b2", "clip_norm")}
        tx = create_optimizer(options["name"], optax.constant_schedule(options["learning_rate"]), **others)
        self._state = jax.jit(lambda: flatten_state(create_train_state(create(), tx)))()
        self._batch = jax.device_put(batch)
        step = jit_train_step(nnx.eval_shape(create), tx, loss_fn, seed=0)
        super().__init__(step, (self._state, self._batch), dtype, lowering)

    def __call__(self, batch=None):
        self._state, metrics = self.compiled(self._state, self._batch if batch is None else batch)
        return metrics


def _create_model_fn(dtype, backbone):
    options = {"backbone": backbone or RECIPE["model"]["backbone"], "dtype": jnp.dtype(dtype)}
    return lambda: create_model(RECIPE["model"]["name"], **options, rngs=nnx.Rngs(0))
