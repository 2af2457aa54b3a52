"""Models of the FUME family by name."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.architecture import PRESETS, Architecture, architecture
from fume_jax.models.fume import FUME

__all__ = ["FUME", "MODELS", "Architecture", "architecture", "count_parameters", "create_model"]

MODELS = tuple(PRESETS)


def create_model(name: str, *, dtype=jnp.float32, rngs: nnx.Rngs, **options: str | bool | None) -> FUME:
    """Creates a model with fresh parameters, in training mode.

    Args:
      name: one of `MODELS`.
      dtype: of the computation, float32 or bfloat16.
      rngs: keys for the parameters.
      **options: `backbone`, `share_encoder`, `fusion`, `gas` and `tasks` of `architecture`; None is as `name` says.

    Raises:
      ValueError: if there is no such model or option, or the options contradict each other.
    """
    return FUME(architecture(name, **options), dtype=dtype, rngs=rngs)


def count_parameters(model: nnx.Module) -> int:
    """Number of trained values of a model; running statistics are not counted."""
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
