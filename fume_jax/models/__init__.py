"""Models of the FUME family by name."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.fume import FUME

MODELS = {
    "fume": FUME,
    "fume_separate": functools.partial(FUME, shared_encoder=False),
}


def create_model(name: str, *, dtype=jnp.float32, rngs: nnx.Rngs) -> nnx.Module:
    """Creates a model with fresh parameters, in training mode.

    Args:
      name: one of `MODELS`.
      dtype: of the computation, float32 or bfloat16.
      rngs: keys for the parameters.

    Raises:
      ValueError: if there is no model of that name.
    """
    if name not in MODELS:
        raise ValueError(f"There is no model named {name!r}; choose one of: {', '.join(MODELS)}.")
    return MODELS[name](dtype=dtype, rngs=rngs)


def count_parameters(model: nnx.Module) -> int:
    """Number of trained values of a model; running statistics are not counted."""
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
