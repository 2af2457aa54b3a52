"""Export to StableHLO, which JAX runs without the model's code, later versions too for six months at least."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models import FUME

PLATFORMS = ("cpu", "cuda", "tpu")


def to_stablehlo(model: FUME, *, height: int, width: int) -> bytes:
    """Exports a model in evaluation mode, with its parameters, for `jax.export.deserialize`.

    The exported function takes `co2_frame`, `ch4_frame` float32 [batch, height, width, 1] and `modality_mask` float32
    [batch, 2] by name, for any batch, on every platform of `PLATFORMS`, and returns the outputs of the model.
    """
    graphdef, state = nnx.split(model)

    def predict(co2_frame, ch4_frame, modality_mask):
        return nnx.merge(graphdef, state)(co2_frame, ch4_frame, modality_mask)

    (batch,) = jax.export.symbolic_shape("batch")
    frame = jax.ShapeDtypeStruct((batch, height, width, 1), jnp.float32)
    exported = jax.export.export(jax.jit(predict), platforms=PLATFORMS)(
        co2_frame=frame, ch4_frame=frame, modality_mask=jax.ShapeDtypeStruct((batch, 2), jnp.float32)
    )
    return bytes(exported.serialize())
