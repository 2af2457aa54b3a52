"""Depthwise 3x3 convolution as two Pallas kernels for NVIDIA GPUs from Ampere on: one forward, one backward.

A candidate that no GPU has judged yet, so not a part of the package. Importing it adds the lowering "pallas".

The convolution does 18 operations a number, so its speed is that of memory, and of whatever instructions stand between
the loads. An output [N, H, W, C] is cut into patches of PATCH x PATCH pixels. A program has PATCHES of them, neighbours
in a row first, and CHANNELS channels: arrays of [PATCHES, CHANNELS], one for each pixel of the patch. As C lies
innermost, a load of one is PATCHES whole lines of memory. A pixel of the source is loaded once for all pixels of the
patch that it belongs to, up to nine, and is added to them, times its weights, in float32. Loads beyond the edges are
masked and give zeros, which is the padding; so patches, and channels, may stick out.

The backward kernel makes patches of the input's gradient. To pixel (h, w) and weight (i, j) belongs the same pixel of
`g` in both gradients:

    grad_x[h, w] = sum over i, j of g[(h + 1 - i) / stride, (w + 1 - j) / stride] * kernel[i, j]
    grad_kernel[i, j] = sum over h, w of g[(h + 1 - i) / stride, (w + 1 - j) / stride] * x[h, w]

where the divisions leave no rest. So one kernel reads `x` and `g` once for both. Each program writes its part of the
second sum, and XLA adds up the parts: no atomics, the same result in every run.

Pallas's Triton backend is named: its other one, Mosaic GPU, begins with Hopper. On a CPU the kernels are interpreted,
which is for tests. For one device: XLA cannot split a kernel, so a batch sharded over several needs `shard_map`.
"""

import collections
import functools
import itertools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from fume_jax.models import depthwise

# Powers of two. Of PATCHES x CHANNELS numbers each of the 32 x WARPS threads has four: loads of 8 or 16 bytes.
PATCH, PATCHES, CHANNELS, WARPS = 4, 16, 32, 4


def pallas_forward(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Convolves `x` [N, H, W, C] with `kernel` [3, 3, 1, C], padding 1, stride 1 or 2, adding up in float32."""
    batch, height, width, channels = x.shape
    y = jax.ShapeDtypeStruct((batch, -(-height // stride), -(-width // stride), channels), x.dtype)
    return _call(functools.partial(_forward_kernel, stride=stride), _grid(y), y, x, kernel.reshape(9, channels))


def pallas_backward(x: jax.Array, kernel: jax.Array, g: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """Gradients of `x` and of `kernel`, where `g` [N, ceil(H / stride), ceil(W / stride), C] is that of the result."""
    grid = _grid(x)
    outputs = jax.ShapeDtypeStruct(x.shape, x.dtype), jax.ShapeDtypeStruct((grid[1], 9, x.shape[3]), jnp.float32)
    kernel_fn = functools.partial(_backward_kernel, stride=stride)
    grad_x, parts = _call(kernel_fn, grid, outputs, x, kernel.reshape(9, -1), g)
    return grad_x, parts.sum(0).reshape(kernel.shape).astype(kernel.dtype)


def _call(kernel_fn, grid, out_shape, *arrays):
    def call(*arrays, interpret):
        params = plgpu.CompilerParams(num_warps=WARPS, num_stages=1)
        return pl.pallas_call(kernel_fn, out_shape, grid=grid, compiler_params=params, interpret=interpret)(*arrays)

    branches = {"cpu": functools.partial(call, interpret=True), "cuda": functools.partial(call, interpret=False)}
    return lax.platform_dependent(*arrays, **branches)


def _grid(output):
    batch, height, width, channels = output.shape
    patches = batch * pl.cdiv(height, PATCH) * pl.cdiv(width, PATCH)
    return pl.cdiv(channels, CHANNELS), pl.cdiv(patches, PATCHES)


def _forward_kernel(x_ref, kernel_ref, y_ref, *, stride):
    n, top, left, channels = _place(y_ref)
    weights = _weights(kernel_ref, channels)
    sources = _sources(lambda pixel, k: stride * pixel + k - 1)
    sums = collections.defaultdict(float)
    for (row, rows), (column, columns) in itertools.product(sources.items(), repeat=2):
        x = _load(x_ref, n, stride * top + row, stride * left + column, channels)
        for (r, i), (c, j) in itertools.product(rows, columns):
            sums[r, c] += x * weights[i, j]
    for (r, c), value in sums.items():
        _store(y_ref, n, top + r, left + c, channels, value)


def _backward_kernel(x_ref, kernel_ref, g_ref, grad_x_ref, parts_ref, *, stride):
    n, top, left, channels = _place(x_ref)
    weights = _weights(kernel_ref, channels)
    sources = _sources(lambda pixel, k: (pixel + 1 - k) / stride)
    pixels = itertools.product(range(PATCH), repeat=2)
    x = {(r, c): _load(x_ref, n, top + r, left + c, channels) for r, c in pixels}
    grad_x, grad_kernel = collections.defaultdict(float), collections.defaultdict(float)
    for (row, rows), (column, columns) in itertools.product(sources.items(), repeat=2):
        g = _load(g_ref, n, top // stride + row, left // stride + column, channels)
        for (r, i), (c, j) in itertools.product(rows, columns):
            grad_x[r, c] += g * weights[i, j]
            grad_kernel[i, j] += g * x[r, c]
    for (r, c), value in grad_x.items():
        _store(grad_x_ref, n, top + r, left + c, channels, value)
    for (i, j), value in grad_kernel.items():
        part = parts_ref.at[pl.program_id(1), 3 * i + j, channels[0]]
        plgpu.store(part, value.sum(0), mask=channels[0] < parts_ref.shape[2])


def _sources(source_of):
    """{row of the source: [(row of the patch, row of the kernel)]}, counted from the patch's corner; so for columns."""
    sources = collections.defaultdict(list)
    for pixel, k in itertools.product(range(PATCH), range(3)):
        if source_of(pixel, k) % 1 == 0:
            sources[int(source_of(pixel, k))].append((pixel, k))
    return dict(sorted(sources.items()))


def _place(ref):
    """Example, top row and left column [PATCHES, 1] of a program's patches of `ref`, and its channels [1, CHANNELS]."""
    down, across = pl.cdiv(ref.shape[1], PATCH), pl.cdiv(ref.shape[2], PATCH)
    patch = PATCHES * pl.program_id(1) + lax.broadcasted_iota(jnp.int32, (PATCHES, 1), 0)
    row = lax.div(patch, across)
    channels = CHANNELS * pl.program_id(0) + lax.broadcasted_iota(jnp.int32, (1, CHANNELS), 1)
    return lax.div(row, down), PATCH * lax.rem(row, down), PATCH * lax.rem(patch, across), channels


def _weights(kernel_ref, channels):
    mask = channels < kernel_ref.shape[1]
    places = itertools.product(range(3), repeat=2)
    return {
        (i, j): plgpu.load(kernel_ref.at[3 * i + j, channels], mask=mask, other=0).astype(jnp.float32)
        for i, j in places
    }


def _inside(ref, n, row, column, channels):
    batch, height, width, depth = ref.shape
    return (n < batch) & (row >= 0) & (row < height) & (column >= 0) & (column < width) & (channels < depth)


def _load(ref, n, row, column, channels):
    mask = _inside(ref, n, row, column, channels)
    return plgpu.load(ref.at[n, row, column, channels], mask=mask, other=0).astype(jnp.float32)


def _store(ref, n, row, column, channels, value):
    mask = _inside(ref, n, row, column, channels)
    plgpu.store(ref.at[n, row, column, channels], value.astype(ref.dtype), mask=mask)


def _of_many_channels(direction, library):
    """The kernel, or for one channel in and many out, which it was not made for, the library."""

    def implementation(x, kernel, *g, stride):
        chosen = direction if x.shape[3] == kernel.shape[3] else library
        return chosen(x, kernel, *g, stride=stride)

    return implementation


for _direction, _function in (("forward", pallas_forward), ("backward", pallas_backward)):
    _library = depthwise.IMPLEMENTATIONS["library", _direction]
    depthwise.IMPLEMENTATIONS["pallas", _direction] = _of_many_channels(_function, _library)
