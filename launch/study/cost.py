"""Size and speed of models on this machine."""

import dataclasses
import functools
import math
import os
import statistics
import time

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from fume_jax.config import get_architecture
from fume_jax.models import FUME, Architecture, count_parameters
from fume_jax.models.macs import count_macs

# Calls of which the median counts, after those that warm up.
CALLS, WARM_UP = 30, 3


@dataclasses.dataclass(frozen=True)
class Cost:
    """Trained values, multiply-accumulates of one pair, and milliseconds of one pair, NaN if not measured."""

    parameters: int
    macs: int
    milliseconds: float = math.nan


def measure_cost(config: ml_collections.ConfigDict, *, timed: bool) -> Cost:
    """Counts the parameters and the operations of the model of a config at its size, and times it if asked to.

    Models that are the same but for the values of their parameters are measured once.
    """
    return _measure(get_architecture(config), config.model.dtype, config.data.height, config.data.width, timed)


def describe_device() -> str:
    """Returns the device that models run on, in words."""
    device = jax.devices()[0]
    return f"one {device.device_kind}" if device.platform != "cpu" else f"a CPU with {os.cpu_count()} cores"


@functools.cache
def _measure(options: Architecture, dtype: str, height: int, width: int, timed: bool):
    model = nnx.eval_shape(lambda: FUME(options, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0)))
    cost = Cost(count_parameters(model), count_macs(model, height, width))
    if not timed:
        return cost
    return dataclasses.replace(cost, milliseconds=_time(options, dtype, height, width))


def _time(options, dtype, height, width):
    """Returns the median milliseconds of a compiled model with fresh parameters on one pair, all on the device."""
    model = FUME(options, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))
    model.eval()
    graphdef, state = nnx.split(model)
    forward = jax.jit(lambda state, *inputs: nnx.merge(graphdef, state)(*inputs))
    frame = jax.random.uniform(jax.random.key(0), (1, height, width, 1), minval=-1, maxval=1)
    inputs, seconds = (state, frame, frame, jnp.ones((1, 2))), []
    for _ in range(WARM_UP + CALLS):
        start = time.perf_counter()
        jax.block_until_ready(forward(*inputs))
        seconds.append(time.perf_counter() - start)
    return 1e3 * statistics.median(seconds[WARM_UP:])
