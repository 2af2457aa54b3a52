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

# Shifted or library, per platform: on CPU as benchmarks/run.py measures; benchmarks/gpu.py compares all on any.
LOWERING = {"cpu": "shifted", "default": "library"}


class DepthwiseConv(nnx.Module):
    """3x3 convolution of every channel by itself, or of the only one to as many as there are kernels; no bias."""

    def __init__(self, channels: int, *, stride: int = 1, dtype=jnp.float32, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (3, 3, 1, channels)))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `x` [N, H, W, C or 1] to [N, ceil(H / stride), ceil(W / stride), C], padding 1."""
        return depthwise_conv(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves `x` [N, H, W, C or 1] with `kernel` [3, 3, 1, C], stride 1 or 2; no forward-mode gradient."""
    return _dispatch("forward", stride, x, kernel)


def _forward(x, kernel, stride):
    return depthwise_conv(x, kernel, stride), (x, kernel)


def _backward(stride, residuals, g):
    return _dispatch("backward", stride, *residuals, g)


depthwise_conv.defvjp(_forward, _backward)


def _dispatch(direction, stride, *arrays):
    branches = {
        platform: functools.partial(IMPLEMENTATIONS[name, direction], stride=stride)
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


def _windows(padded, out_height, out_width, stride, taps=3):
    """The shifted views of `padded` [N, H, W, C] that meet `taps` x `taps` weights, row by row."""
    for i in range(taps):
        for j in range(taps):
            yield padded[
                :, i : i + (out_height - 1) * stride + 1 : stride, j : j + (out_width - 1) * stride + 1 : stride
            ]


def _shifted_forward(x, kernel, stride):
    out_height, out_width = -(-x.shape[1] // stride), -(-x.shape[2] // stride)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    weights = kernel.reshape(9, -1)
    return sum(w * k for w, k in zip(_windows(padded, out_height, out_width, stride), weights, strict=True))


def _shifted_backward(x, kernel, g, stride):
    grad_x = _grad_input(x.shape, kernel, g) if stride == 2 else _shifted_forward(g, kernel[::-1, ::-1], 1)
    if x.shape[3] < g.shape[3]:
        grad_x = grad_x.sum(3, keepdims=True)
    padded_x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    products = [(w * g).astype(jnp.float32) for w in _windows(padded_x, *g.shape[1:3], stride)]
    return grad_x, _sums(products).reshape(kernel.shape).astype(kernel.dtype)


def _grad_input(shape, kernel, g):
    """Gradient of the input of this shape at stride 2: even and odd rows and columns have taps of their own."""
    n, height, width, channels = g.shape
    (k00, k01, k02), (k10, k11, k12), (k20, k21, k22) = kernel[:, :, 0]
    here, right, below, across = _windows(jnp.pad(g, ((0, 0), (0, 1), (0, 1), (0, 0))), height, width, 1, taps=2)
    even_rows = jnp.stack([here * k11, here * k12 + right * k10], axis=3)
    odd_rows = jnp.stack([here * k21 + below * k01, here * k22 + right * k20 + below * k02 + across * k00], axis=3)
    rows = [x.reshape(n, height, 2 * width, channels) for x in (even_rows, odd_rows)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * height, 2 * width, channels)[:, : shape[1], : shape[2]]


def _sums(products):
    """Sums of nine arrays [N, H, W, C] over all but the channels: float32 [9, C].

    One variadic reduction reads what the nine share once. Over few columns at a time: only a short loop is unrolled,
    and what is left then runs over the channels, many at once.
    """
    n, height, width, channels = products[0].shape
    short = max(k for k in range(1, 11) if width % k == 0)
    partial = lax.reduce(
        [p.reshape(n, height, width // short, short, channels) for p in products],
        [jnp.zeros((), jnp.float32)] * len(products),
        lambda a, b: [x + y for x, y in zip(a, b, strict=True)],
        dimensions=(3,),
    )
    return jnp.stack(partial).sum((1, 2, 3))


# By name and direction: (x, kernel, stride) to y, and (x, kernel, g, stride) to the gradients of x and kernel.
IMPLEMENTATIONS = {
    ("shifted", "forward"): _shifted_forward,
    ("shifted", "backward"): _shifted_backward,
    ("library", "forward"): library_depthwise_conv,
    ("library", "backward"): _library_backward,
}
