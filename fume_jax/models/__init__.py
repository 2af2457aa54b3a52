"""Models of the FUME family by name."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.architecture import PRESETS, Architecture, architecture
from fume_jax.models.fume import FUME

__all__ = ["FUME", "MODELS", "Architecture", "architecture", "count_parameters", "create_model"]

MODELS = tuple(PRESETS)


def create_model(
    name: str,
    *,
    encoder: str | None = None,
    fusion: str | None = None,
    gas: str | None = None,
    tasks: str | None = None,
    dtype=jnp.float32,
    rngs: nnx.Rngs,
) -> FUME:
    """Creates a model with fresh parameters, in training mode.

    Args:
      name: one of `MODELS`.
      encoder: `shared` or `separate`; this and the next three are as `name` says where None.
      fusion: of the two gases, see `fume_jax.models.architecture.FUSIONS`.
      gas: that the model reads, `co2`, `ch4` or `both`.
      tasks: `segmentation`, `classification` or `both`.
      dtype: of the computation, float32 or bfloat16.
      rngs: keys for the parameters.

    Raises:
      ValueError: if there is no such model or option, or the options contradict each other.
    """
    options = architecture(name, encoder=encoder, fusion=fusion, gas=gas, tasks=tasks)
    return FUME(options, dtype=dtype, rngs=rngs)


def count_parameters(model: nnx.Module) -> int:
    """Number of trained values of a model; running statistics are not counted."""
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
