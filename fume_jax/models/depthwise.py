"""Depthwise 3x3 convolution, the one layer whose lowering is chosen per backend.

XLA has no fast grouped convolution on CPU: nine shifted slices, each times its weights, are several times faster
there, forward and backward. Elsewhere the library convolution is used. The choice is made when a program is lowered
for its platform (`jax.lax.platform_dependent`), so an export for several platforms holds the right one for each.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

# Shifted or library, per platform: on CPU as benchmarks/forward.py measured; benchmarks/gpu.py compares the two on any.
LOWERING = {"cpu": "shifted", "default": "library"}


class DepthwiseConv(nnx.Module):
    """3x3 convolution of every channel by itself, padding 1, no bias."""

    def __init__(self, channels: int, *, stride: int = 1, dtype=jnp.float32, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (3, 3, 1, channels)))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `x` [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C]."""
        return depthwise_conv(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves `x` [N, H, W, C] with `kernel` [3, 3, 1, C], padding 1, stride 1 or 2; no forward-mode gradient."""
    return _dispatch("forward", stride, x, kernel)


def _forward(x, kernel, stride):
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _backward(stride, residuals, g):
    return _dispatch("backward", stride, *residuals, g)


depthwise_conv.defvjp(_forward, _backward)


def _dispatch(direction, stride, *arrays):
    branches = {
        platform: functools.partial(_IMPLEMENTATIONS[name, direction], stride=stride)
        for platform, name in LOWERING.items()
    }
    return lax.platform_dependent(*arrays, **branches)


def library_depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """The same convolution by XLA's grouped `conv_general_dilated`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=((1, 1), (1, 1)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _library_backward(x, kernel, g, stride):
    return jax.vjp(functools.partial(library_depthwise_conv, stride=stride), x, kernel)[1](g)


def _windows(padded, out_height, out_width, stride):
    """The nine shifted views of `padded` [N, H + 2, W + 2, C] that meet the nine weights, row by row."""
    for i in range(3):
        for j in range(3):
            yield padded[
                :, i : i + (out_height - 1) * stride + 1 : stride, j : j + (out_width - 1) * stride + 1 : stride
            ]


def _shifted_forward(x, kernel, stride):
    out_height, out_width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    weights = kernel.reshape(9, -1)
    return sum(w * k for w, k in zip(_windows(padded, out_height, out_width, stride), weights, strict=True))


def _shifted_backward(x, kernel, g, stride):
    height, width = x.shape[1:3]
    # Gradient of the input: the same shifted sum over the dilated gradient, with the kernel turned by 180 degrees.
    dilated = [
        (1, n + 1 - ((m - 1) * stride + 1), stride - 1) for n, m in zip((height, width), g.shape[1:3], strict=True)
    ]
    padded_g = lax.pad(g, jnp.zeros((), g.dtype), [(0, 0, 0), *dilated, (0, 0, 0)])
    weights = kernel[::-1, ::-1].reshape(9, -1)
    grad_x = sum(w * k for w, k in zip(_windows(padded_g, height, width, 1), weights, strict=True))
    # Gradient of the kernel: one variadic reduction reads the nine products once; nine separate sums are memory-bound.
    padded_x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    products = tuple((w * g).astype(jnp.float32) for w in _windows(padded_x, *g.shape[1:3], stride))
    rows = lax.reduce(
        products,
        (jnp.zeros((), jnp.float32),) * 9,
        lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
        dimensions=(2,),
    )
    grad_kernel = jnp.stack(rows).sum((1, 2)).reshape(kernel.shape)
    return grad_x, grad_kernel.astype(kernel.dtype)


_IMPLEMENTATIONS = {
    ("shifted", "forward"): _shifted_forward,
    ("shifted", "backward"): _shifted_backward,
    ("library", "forward"): library_depthwise_conv,
    ("library", "backward"): _library_backward,
}
