"""Size and speed of models on this machine."""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
from flax import nnx

from fume_jax.config import get_architecture
from fume_jax.models import FUME, Architecture, count_parameters
from fume_jax.models.macs import count_macs

# Turns of which the median counts, after those that warm up.
TURNS, WARM_UP = 30, 3


@dataclasses.dataclass(frozen=True)
class Cost:
    """Trained values, multiply-accumulates of one pair, and milliseconds of one pair, NaN if not measured."""

    parameters: int
    macs: int
    milliseconds: float = math.nan


class _Model(NamedTuple):
    """What decides size and speed of a model."""

    options: Architecture
    dtype: str
    height: int
    width: int


def measure_costs(configs: Sequence[ml_collections.ConfigDict], *, timed: bool) -> list[Cost]:
    """Counts parameters and operations of the models of configs at their sizes, and times them if asked to.

    Models that are the same but for the values of their parameters are measured once.
    """
    data = [(config.model.dtype, config.data.height, config.data.width) for config in configs]
    models = [_Model(get_architecture(config), *of) for config, of in zip(configs, data, strict=True)]
    different = list(dict.fromkeys(models))
    milliseconds = _time_in_turns([_compile(model) for model in different]) if timed else [math.nan] * len(different)
    costs = {model: _count(model, spent) for model, spent in zip(different, milliseconds, strict=True)}
    return [costs[model] for model in models]


def describe_device() -> str:
    """Returns the device that models run on, in words."""
    device = jax.devices()[0]
    return f"one {device.device_kind}" if device.platform != "cpu" else f"a CPU with {os.cpu_count()} cores"


def _count(model, milliseconds):
    abstract = nnx.eval_shape(lambda: FUME(model.options, dtype=jnp.dtype(model.dtype), rngs=nnx.Rngs(0)))
    return Cost(count_parameters(abstract), count_macs(abstract, model.height, model.width), milliseconds)


def _compile(model) -> Callable:
    """Returns a call of the model with fresh parameters on one pair, all on the device."""
    module = FUME(model.options, dtype=jnp.dtype(model.dtype), rngs=nnx.Rngs(0))
    module.eval()
    graphdef, state = nnx.split(module)
    forward = jax.jit(lambda state, *inputs: nnx.merge(graphdef, state)(*inputs))
    frame = jax.random.uniform(jax.random.key(0), (1, model.height, model.width, 1), minval=-1, maxval=1)
    return lambda: forward(state, frame, frame, jnp.ones((1, 2)))


def _time_in_turns(calls):
    """Returns the median milliseconds of each call; they take turns, so that what slows the machine meets all."""
    seconds = [[] for _ in calls]
    for _ in range(WARM_UP + TURNS):
        for call, own in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(call())
            own.append(time.perf_counter() - start)
    return [1e3 * statistics.median(own[WARM_UP:]) for own in seconds]
