"""Forward pass of FUME with our depthwise convolution against Flax's grouped convolution.

    python -m benchmarks.forward

One pair at 480x640, the two taken in turns; prints medians and their ratio.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

from benchmarks.timing import alternate, table
from fume_jax.models import create_model
from fume_jax.models.depthwise import DepthwiseConv

_REPEATS = flags.DEFINE_integer("repeats", 20, "Runs of each.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "Pairs a run.", lower_bound=1)


def with_grouped_convolutions(model: nnx.Module) -> nnx.Module:
    """The same model and weights, every depthwise layer an `nnx.Conv` with `feature_group_count`."""

    def grouped(layer):
        channels = layer.kernel.shape[-1]
        conv = nnx.Conv(
            channels,
            channels,
            (3, 3),
            strides=layer.stride,
            padding=1,
            feature_group_count=channels,
            use_bias=False,
            rngs=nnx.Rngs(0),
        )
        conv.kernel = layer.kernel
        return conv

    for _, module in list(nnx.iter_modules(model)):
        for name, child in list(vars(module).items()):
            if isinstance(child, DepthwiseConv):
                setattr(module, name, grouped(child))
    return model


def main(_) -> None:
    inputs = (
        jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (_BATCH.value, 480, 640, 1)), jnp.float32),
        jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (_BATCH.value, 480, 640, 1)), jnp.float32),
        jnp.ones((_BATCH.value, 2)),
    )
    calls, outputs = {}, {}
    for name, change in (("ours", lambda m: m), ("grouped nnx.Conv", with_grouped_convolutions)):
        model = change(create_model("fume", rngs=nnx.Rngs(0)))
        model.eval()
        graphdef, state = nnx.split(model)
        forward = jax.jit(lambda state, *x, graphdef=graphdef: nnx.merge(graphdef, state)(*x))
        calls[name] = functools.partial(forward, state, *inputs)
        outputs[name] = calls[name]()
    error = max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, outputs.values()), strict=True))
    medians = alternate(calls, repeats=_REPEATS.value)
    peer = medians["grouped nnx.Conv"]
    rows = [[name, f"{1e3 * t:.1f}", f"{peer / t:.1f}x"] for name, t in medians.items()]
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {_BATCH.value} pair(s) of 480x640, {error:.0e} apart"
    )
    print(table(["depthwise convolution", "median ms", "speed"], rows))


if __name__ == "__main__":
    app.run(main)
