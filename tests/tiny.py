"""The smallest encoder, `--config.model.backbone=tiny`: it compiles in seconds, and what surrounds it is all there.

`python -m tests.tiny MODULE ...` runs a module that knows it.
"""

import runpy
import sys

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.backbones import BACKBONES
from fume_jax.models.layers import BatchNorm


class TinyEncoder(nnx.Module):
    channels = (8, 16)
    strides = (8, 32)

    def __init__(self, in_channels: int = 1, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.fine = nnx.Conv(in_channels, 8, (8, 8), strides=8, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(8, dtype=dtype)
        self.coarse = nnx.Conv(8, 16, (4, 4), strides=4, dtype=dtype, rngs=rngs)

    def __call__(self, frames: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        low = nnx.relu(self.norm(self.fine(frames), present))
        return low, nnx.relu(self.coarse(low))


BACKBONES["tiny"] = TinyEncoder

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
