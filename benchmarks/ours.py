"""Our side of a comparison: batches of noise, inference and the training step of configs/fume.py, compiled ahead.

Needs numpy, jax, flax and optax alone.
"""

import functools
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fume_jax.learning import augment
from fume_jax.learning.losses import multi_task_loss
from fume_jax.learning.optimizer import create_optimizer, create_schedule
from fume_jax.learning.step import create_train_state, jit_train_step, predict_step, split_model
from fume_jax.models import create_model, depthwise
from fume_jax.schema import CLASSES, GASES, MASK_CLASSES, batch_spec

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
# Of the published recipe; the peer takes them too.
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 1e-4, 1.0
ALPHA, GAMMA = (1.0, 8.0, 1.2), 2.0
PAIRS, EPOCHS, BATCH_SIZE = 4383, 50, 8
# What configs/fume.py says of it, which needs more libraries to be read.
AUGMENTATION = (
    augment.HorizontalFlip(0.5),
    augment.ShiftScaleRotate(0.5, shift=0.1, scale=0.15, rotate=15.0),
    augment.Elastic(0.3, affine=50 / 480, sigma=50 / 480, amplitude=0.01),
    augment.OneOf(
        0.3, (augment.GaussianNoise(1.0, 10.0, 50.0), augment.GaussianBlur(1.0, 3, 7), augment.MotionBlur(1.0, 3, 7))
    ),
    augment.BrightnessContrast(0.5, brightness=0.2, contrast=0.2),
    augment.Gamma(0.3, low=0.8, high=1.2),
    augment.ModalityDropout(0.2),
)
# Validation pairs of it.
VALIDATION_PAIRS = 939


def random_batch(batch_size: int, height: int, width: int) -> dict[str, np.ndarray]:
    """Pairs of noise on the host, all of both gases."""
    rng = np.random.default_rng(0)
    batch = {name: np.ones(x.shape, x.dtype) for name, x in batch_spec(batch_size, height, width).items()}
    for gas in GASES:
        batch[f"{gas}_frame"] = rng.uniform(-1, 1, (batch_size, height, width, 1)).astype(np.float32)
        batch[f"{gas}_mask"] = rng.integers(0, len(MASK_CLASSES), (batch_size, height, width), np.int32)
    batch["labels"] = rng.integers(0, len(CLASSES), batch_size, np.int32)
    return batch


def lowered_as(name: str):
    """Context in which depthwise convolutions compile that way, on every platform."""
    return mock.patch.object(depthwise, "LOWERING", {"default": name})


def fresh_model(dtype: str = "float32"):
    """FUME with the same parameters at every call."""
    return create_model("fume", dtype=DTYPES[dtype], rngs=nnx.Rngs(0))


def create_tx():
    """The optimiser of the published recipe."""
    schedule = create_schedule(
        "cosine",
        learning_rate=LEARNING_RATE,
        final_learning_rate=LEARNING_RATE / 100,
        warmup_steps=0,
        total_steps=EPOCHS * -(-PAIRS // BATCH_SIZE),
    )
    return create_optimizer("adamw", schedule, weight_decay=WEIGHT_DECAY, b1=0.9, b2=0.999, clip_norm=CLIP_NORM)


def loss_fn(outputs, batch):
    """The objective as configs/fume.py sets it."""
    return multi_task_loss(outputs, batch, alpha=ALPHA, gamma=GAMMA, seg_alpha=(1.0,) * len(MASK_CLASSES))


class _Compiled:
    """A function compiled for some arguments; `lower_seconds` and `compile_seconds` say how long that took."""

    def __init__(self, jitted, *arguments):
        start = time.perf_counter()
        self.lowered = jitted.lower(*arguments)
        lowered = time.perf_counter()
        self.compiled = self.lowered.compile()
        self.lower_seconds, self.compile_seconds = lowered - start, time.perf_counter() - lowered

    @property
    def memory_bytes(self):
        """Of arguments, results and what lies between, on one device; None where the platform does not tell."""
        memory = self.compiled.memory_analysis()
        sizes = memory and (memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes)
        return sizes and sum(sizes) - memory.alias_size_in_bytes


class Inference(_Compiled):
    """Logits of one batch, at every call."""

    def __init__(self, batch, dtype="float32"):
        model = nnx.eval_shape(lambda: fresh_model(dtype))
        model.eval()
        graphdef, _, _ = split_model(model)
        state = jax.jit(lambda: split_model(fresh_model(dtype))[1:])()
        self._arguments = *state, jax.device_put(batch)
        super().__init__(jax.jit(functools.partial(predict_step, graphdef=graphdef)), *self._arguments)

    def __call__(self):
        return self.compiled(*self._arguments)


def create_training(dtype: str = "float32"):
    """State before the first step, and the jitted step."""
    tx = create_tx()
    state = jax.jit(lambda: create_train_state(fresh_model(dtype), tx))()
    return state, jit_train_step(nnx.eval_shape(lambda: fresh_model(dtype)), tx, loss_fn, seed=0)


class Repeated:
    """A compiled step on one batch, at every call, which returns its metrics."""

    def __init__(self, compiled, state, batch):
        self.compiled, self._state, self._batch = compiled, state, batch

    def __call__(self):
        self._state, metrics = self.compiled(self._state, self._batch)
        return metrics


class TrainingStep(_Compiled, Repeated):
    """A training step on one batch, at every call, which returns its metrics."""

    def __init__(self, batch, dtype="float32"):
        state, step = create_training(dtype)
        batch = jax.device_put(batch)
        _Compiled.__init__(self, step, state, batch)
        Repeated.__init__(self, self.compiled, state, batch)
