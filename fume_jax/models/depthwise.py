"""Depthwise 3x3 or 5x5 convolution, the one layer whose lowering is chosen per backend.

XLA has no fast grouped convolution on CPU: nine shifted slices (or 25), each times its weights, are several times
faster there, forward and backward. On a TPU they are so for few channels without gradients. Other backends use the
library convolution. The choice is made when a program is lowered for its platform (`jax.lax.platform_dependent`), so an
export for several platforms holds the right one for each.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

# Implementation per platform; benchmarks/run.py measured the choice for CPU, benchmarks/gpu.py compares both on any.
LOWERING = {"cpu": "shifted", "tpu": "narrow", "default": "library"}
# Where no gradient follows, shifted slices of up to so many channels take a TPU v5e fewer cycles, says its compiler: of
# 16 frames 1.3 million and not 9.7 for the first convolution at 480x640, 1.8 and not 4.4 for the next. With 48 channels
# it is 1.4 and not 0.5, and a whole training step takes 44 and not 36.
NARROW = 32


class DepthwiseConv(nnx.Module):
    """Convolution of every channel by itself, or of a single channel to as many as there are kernels; no bias.

    Kernels have `size` x `size` weights, 3 or 5.
    """

    def __init__(self, channels: int, *, size: int = 3, stride: int = 1, dtype=jnp.float32, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.lecun_normal()(rngs.params(), (size, size, 1, channels)))
        self.stride = stride
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `x` [N, H, W, C or 1] to [N, ceil(H / stride), ceil(W / stride), C], padding size // 2."""
        return depthwise_conv(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves `x` [N, H, W, C or 1] with `kernel` [3, 3, 1, C] or [5, 5, 1, C], stride 1 or 2.

    There is no forward-mode gradient.
    """
    return _dispatch("primal", stride, x, kernel)


depthwise_conv.defvjp(
    lambda x, kernel, stride: (_dispatch("forward", stride, x, kernel), (x, kernel)),
    lambda stride, residuals, g: _dispatch("backward", stride, *residuals, g),
)


def _dispatch(part, stride, *arrays):
    branches = {p: functools.partial(IMPLEMENTATIONS[name, part], stride=stride) for p, name in LOWERING.items()}
    return lax.platform_dependent(*arrays, **branches)


def library_depthwise_conv(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves as `depthwise_conv` does, by XLA's grouped `conv_general_dilated`."""
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": x.shape[-1]}
    padding = kernel.shape[0] // 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), [(padding, padding)] * 2, **options)


def _library_backward(x, kernel, g, stride):
    return jax.vjp(functools.partial(library_depthwise_conv, stride=stride), x, kernel)[1](g)


def _narrow_primal(x, kernel, stride):
    if kernel.shape[3] > NARROW:
        return library_depthwise_conv(x, kernel, stride)
    return _weighted_sum(_padded_slices(x, stride, len(kernel)), kernel)


def _padded_slices(x, stride, taps):
    """Yields the same as `_same_windows`, each padded by itself: a TPU then pads while it adds."""
    for offsets in np.ndindex(taps, taps):
        starts, stops, padding = [0] * 4, [*x.shape], [(0, 0, 0)] * 4
        for axis, offset in zip((1, 2), offsets, strict=True):
            length, first = -(-x.shape[axis] // stride), offset - taps // 2
            before = min(max(0, -(first // stride)), length)
            inside = range(first + before * stride, x.shape[axis], stride)[: length - before]
            starts[axis], stops[axis] = (inside[0], inside[-1] + 1) if inside else (0, 0)
            padding[axis] = (before, length - before - len(inside), 0)
        yield lax.pad(lax.slice(x, starts, stops, (1, stride, stride, 1)), np.zeros((), x.dtype), padding)


def _weighted_sum(windows, kernel):
    return sum(w * k for w, k in zip(windows, kernel.reshape(-1, 1, 1, 1, kernel.shape[3]), strict=True))


def _windows(x, height, width, stride, padding, taps):
    """Yields the shifted views [N, height, width, C] of zero-padded `x` that meet `taps` x `taps` weights, by row."""
    padded = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
    for i, j in np.ndindex(taps, taps):
        yield padded[:, i : i + rows : stride, j : j + columns : stride]


def _same_windows(x, height, width, stride, taps):
    return _windows(x, height, width, stride, (taps // 2, taps // 2), taps)


def _shifted_forward(x, kernel, stride):
    return _weighted_sum(_same_windows(x, *(-(-n // stride) for n in x.shape[1:3]), stride, len(kernel)), kernel)


def _shifted_backward(x, kernel, g, stride):
    grad_x = _grad_input(x.shape, kernel, g) if stride == 2 else _shifted_forward(g, kernel[::-1, ::-1], 1)
    if x.shape[3] < g.shape[3]:
        grad_x = grad_x.sum(3, keepdims=True)
    windows = _same_windows(x, *g.shape[1:3], stride, len(kernel))
    products = [(w * g).astype(jnp.float32) for w in windows]
    return grad_x, _channel_sums(products).reshape(kernel.shape).astype(kernel.dtype)


def _grad_input(shape, kernel, g):
    """Computes the gradient of the input at stride 2; even and odd rows and columns have taps of their own."""
    n, height, width, channels = g.shape
    taps, padding = len(kernel), len(kernel) // 2
    kernel = kernel.reshape(taps, taps, 1, 1, 1, channels)
    before, after = padding // 2, (padding + 1) // 2
    span = before + 1 + after
    windows = _windows(g, height, width, 1, (before, after), span)
    windows = dict(zip(np.ndindex(span, span), windows, strict=True))

    def phase(row, column):
        """Sums, times their weights, the outputs that read the inputs at rows 2 i + row and columns 2 j + column."""
        terms = [
            windows[(row + padding - i) // 2 + before, (column + padding - j) // 2 + before] * kernel[i, j]
            for i, j in np.ndindex(taps, taps)
            if (row + padding - i) % 2 == (column + padding - j) % 2 == 0
        ]
        return sum(reversed(terms))

    rows = [jnp.stack([phase(row, 0), phase(row, 1)], axis=3).reshape(n, height, 2 * width, channels) for row in (0, 1)]
    return jnp.stack(rows, axis=2).reshape(n, 2 * height, 2 * width, channels)[:, : shape[1], : shape[2]]


def _channel_sums(products):
    """Sums each of some arrays [N, H, W, C] over all but the channels: float32 [arrays, C].

    One variadic reduction reads the operand that they share once. It runs over few columns at a time: XLA unrolls
    only a short loop, and vectorises the rest over the channels.
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


# By name and part of the custom gradient: (x, kernel, stride) to y, in `primal` where no gradient follows, and
# (x, kernel, g, stride) to the gradients of x and kernel.
IMPLEMENTATIONS = {
    ("shifted", "primal"): _shifted_forward,
    ("shifted", "forward"): _shifted_forward,
    ("shifted", "backward"): _shifted_backward,
    ("narrow", "primal"): _narrow_primal,
    ("narrow", "forward"): library_depthwise_conv,
    ("narrow", "backward"): _library_backward,
    ("library", "primal"): library_depthwise_conv,
    ("library", "forward"): library_depthwise_conv,
    ("library", "backward"): _library_backward,
}
