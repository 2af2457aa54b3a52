"""Models of the FUME family by name."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.architecture import PRESETS, Architecture, architecture
from fume_jax.models.fume import FUME

__all__ = ["FUME", "MODELS", "Architecture", "architecture", "count_parameters", "create_model"]

MODELS = tuple(PRESETS)


def create_model(name: str, *, dtype=jnp.float32, rngs: nnx.Rngs, **options: str | bool | float | None) -> FUME:
    """Creates a model with fresh parameters from `rngs`, in training mode.

    `dtype`, float32 or bfloat16, is that of the computation; `name` and `options` are those of `architecture`.
    """
    return FUME(architecture(name, **options), dtype=dtype, rngs=rngs)


def count_parameters(model: nnx.Module) -> int:
    """Counts the trained values of a model; running statistics are not among them."""
    return sum(p.size for p in jax.tree.leaves(nnx.state(model, nnx.Param)))
