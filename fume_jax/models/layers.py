"""Layers that architectures share: batch norm over present frames, convolutions, gates, resizing and pooling.

`present` [N] is 1.0 for frames that count in batch statistics, else 0.0.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fume_jax.models.depthwise import DepthwiseConv


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) over the frames that are present.

    With `use_running_average` False (see `nnx.Module.train`), the mean and biased variance of the present frames
    normalise, and the running statistics move towards them, the variance unbiased as in `torch.nn.BatchNorm2d`. If no
    frame is present, the running statistics normalise and stay as they are.

    Under `jax.jit` with a sharded batch the sums run over the global batch, so devices wait for each other at every
    layer. With `splits` above 1 (see `nnx.Module.set_attributes`) each of that many groups of consecutive frames is
    normalised by its own statistics (ghost batch norm: Hoffer, Hubara and Soudry, arXiv:1705.08741), and the running
    statistics move towards the mean over the groups that have a present frame. A group that lies on one device needs
    nothing of the others. Results do not depend on the number of devices.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5, dtype=jnp.float32):
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.epsilon = epsilon
        self.momentum = 0.1  # weight of the new statistics in the running ones, as in PyTorch
        self.dtype = dtype
        self.splits = 1
        self.use_running_average = False

    def __call__(self, x: jax.Array, present: jax.Array | None = None) -> jax.Array:
        """Normalises `x` [N, H, W, C]; all frames are present if `present` is None."""
        if self.use_running_average:
            return self._normalize(x, self.mean[...], self.var[...])
        present = jnp.ones(x.shape[0]) if present is None else present
        if self.splits == 1:
            y, mean, var, _ = self._normalize_batch(x, present)
        else:
            grouped = (array.reshape(self.splits, -1, *array.shape[1:]) for array in (x, present))
            y, means, variances, any_present = jax.vmap(self._normalize_batch)(*grouped)
            y = y.reshape(x.shape)
            # A group without present frames returns the running statistics and does not move them.
            counted = jnp.maximum(any_present.sum(dtype=jnp.float32), 1)
            mean = self.mean[...] + (means - self.mean[...][None]).sum(0) / counted
            var = self.var[...] + (variances - self.var[...][None]).sum(0) / counted
        self.mean[...] += self.momentum * (jax.lax.stop_gradient(mean) - self.mean[...])
        self.var[...] += self.momentum * (jax.lax.stop_gradient(var) - self.var[...])
        return y

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Sets what `flax.nnx.view` may change."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def _normalize(self, x, mean, var):
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        return _scale_and_shift(x, scale, self.bias[...] - mean * scale).astype(self.dtype)

    def _normalize_batch(self, x, present):
        """Returns `x` normalised by its own statistics, its mean, unbiased variance, and if any frame is present."""
        running = jax.lax.stop_gradient((self.mean[...], self.var[...]))
        y, mean, var = _normalize_batch(x, present, self.scale[...], self.bias[...], *running, self.epsilon)
        count = present.sum() * x.shape[1] * x.shape[2]
        unbiased = jnp.where(count > 0, var * count / jnp.maximum(count - 1, 1), var)
        return y.astype(self.dtype), mean, unbiased, count > 0


def _scale_and_shift(x, scale, shift):
    scale, shift = (jnp.expand_dims(array, (0, 1, 2)) for array in (scale, shift))
    return x.astype(jnp.float32) * scale + shift


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _normalize_batch(x, present, scale, bias, running_mean, running_var, epsilon):
    """Normalises the present frames of `x` [N, H, W, C] by their statistics, or by the running ones if there is none.

    Returns the result, the mean and the biased variance, float32. Gradients are those of `x`, `scale` and `bias`, of
    the result alone. There is no forward-mode gradient.
    """
    return _normalize_batch_forward(x, present, scale, bias, running_mean, running_var, epsilon)[0]


def _normalize_batch_forward(x, present, scale, bias, running_mean, running_var, epsilon):
    frames = x.astype(jnp.float32)
    count = present.sum() * x.shape[1] * x.shape[2]

    def average(x):
        # Each frame is summed first: the mask then costs nothing at full size. A matrix product would be rounded to
        # fewer digits than float32 has on accelerators.
        return (present[:, None] * x.sum((1, 2))).sum(0) / jnp.maximum(count, 1)

    mean = average(frames)
    var = jnp.maximum(average(jnp.square(frames)) - mean**2, 0)
    mean = jnp.where(count > 0, mean, running_mean)
    var = jnp.where(count > 0, var, running_var)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = _scale_and_shift(x, scale * inverse, bias - mean * scale * inverse)
    return (y, mean, var), (x, present, scale, mean, inverse)


def _normalize_batch_backward(epsilon, residuals, gradients):
    del epsilon
    x, present, scale, mean, inverse = residuals
    g, frames = gradients[0], x.astype(jnp.float32)
    # The barriers keep XLA from summing over all frames at once, which takes a GPU two more kernels, and from computing
    # the sums of channels twice.
    sums = jax.lax.optimization_barrier(((g * frames).sum((1, 2)), g.sum((1, 2))))
    by_product, by_bias = (array.sum(0) for array in sums)
    by_scale = (by_product - mean * by_bias) * inverse
    count = jnp.maximum(present.sum() * x.shape[1] * x.shape[2], 1)
    slope = -scale * inverse**2 * by_scale / count
    offset = -scale * inverse * by_bias / count - mean * slope
    by_scale, by_bias, slope, offset = jax.lax.optimization_barrier((by_scale, by_bias, slope, offset))
    # Absent frames do not move the statistics.
    by_statistics = present[:, None, None, None] * _scale_and_shift(x, slope, offset)
    by_x = g * jnp.expand_dims(scale * inverse, (0, 1, 2)) + by_statistics
    return by_x.astype(x.dtype), None, by_scale, by_bias, None, None


_normalize_batch.defvjp(_normalize_batch_forward, _normalize_batch_backward)


# Where starting kernels takes longer than the copies it costs to have fewer of them (docs/speed.md has the figures).
TOGETHER = ("gpu",)


class CallAlike(nnx.Module):
    """Calls modules of one structure, each with inputs of its own, one by one or, if `together`, as one batch.

    Together a program has one set of kernels for all of them. `together` is that of the platform, one of `TOGETHER` or
    not, unless `flax.nnx.view` sets it; results are the same but for rounding.
    """

    def __init__(self):
        self.together = jax.default_backend() in TOGETHER

    def __call__(self, modules: Sequence[nnx.Module], *inputs: Sequence[jax.Array], rngs=None, **options) -> list:
        """Returns what each module returns for its own of the `inputs`; `options` are shared.

        Every module keeps its own batch statistics, and draws a key of `rngs` for dropout.
        """
        keys = [None if rngs is None else rngs.dropout() for _ in modules]
        # A module that stands here twice moves its statistics twice.
        if self.together and len({*map(id, modules)}) == len(modules):
            return _call_together(modules, keys, inputs, options)
        return [_call(module, key, x, options) for module, key, *x in zip(modules, keys, *inputs, strict=True)]

    def set_view(self, together: bool | None = None) -> None:
        """Sets what `flax.nnx.view` may change."""
        if together is not None:
            self.together = together


def _call(module, key, inputs, options):
    return module(*inputs, **options, **({} if key is None else {"rngs": nnx.Rngs(dropout=key)}))


def _call_together(modules, keys, inputs, options):
    graphdef = nnx.graphdef(modules[0])

    def call(state, key, *x):
        module = nnx.merge(graphdef, state)
        return _call(module, key, x, options), nnx.state(module, nnx.BatchStat)

    state = jax.tree.map(lambda *arrays: jnp.stack(arrays), *map(nnx.state, modules))
    results = jax.vmap(call)(state, None if keys[0] is None else jnp.stack(keys), *map(jnp.stack, inputs))
    each = [jax.tree.map(lambda x, i=i: x[i], results) for i in range(len(modules))]
    # In evaluation nothing moves, and a module may be a constant of the program, which cannot be written to.
    if any(isinstance(part, BatchNorm) and not part.use_running_average for _, part in nnx.iter_modules(modules[0])):
        for module, (_, statistics) in zip(modules, each, strict=True):
            nnx.update(module, statistics)
    return [outputs for outputs, _ in each]


class Pointwise(nnx.Linear):
    """1x1 convolution as a matrix product over the channels, which is faster on a CPU."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `x` [..., C] to [..., output channels]."""
        # `x` becomes one matrix: with more axes XLA transposes the whole gradient to compute that of the kernel.
        return super().__call__(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


def stem_conv(in_channels: int, channels: int, *, dtype, rngs: nnx.Rngs) -> nnx.Module:
    """Creates the first convolution of an encoder, 3x3 at stride 2, no bias."""
    if in_channels == 1:
        # One channel makes this a depthwise convolution, which is faster on a CPU.
        return DepthwiseConv(channels, stride=2, dtype=dtype, rngs=rngs)
    return nnx.Conv(in_channels, channels, (3, 3), strides=2, padding=1, use_bias=False, dtype=dtype, rngs=rngs)


class DepthwiseSeparableConv(nnx.Module):
    """Depthwise 3x3 convolution, 1x1 convolution, batch norm and ReLU; nothing between the two convolutions."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, dtype, rngs: nnx.Rngs):
        self.depthwise = DepthwiseConv(in_channels, stride=stride, dtype=dtype, rngs=rngs)
        self.pointwise = Pointwise(in_channels, out_channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(out_channels, dtype=dtype)

    def __call__(self, x, present):
        return nnx.relu(self.norm(self.pointwise(self.depthwise(x)), present))


class ChannelAttention(nnx.Module):
    """Squeeze-and-excitation gate (arXiv:1709.01507): scales each channel by a function of all channels' averages."""

    def __init__(self, channels: int, hidden: int, *, sigmoid=nnx.sigmoid, dtype, rngs: nnx.Rngs):
        self.squeeze = nnx.Linear(channels, hidden, dtype=dtype, rngs=rngs)
        self.excite = nnx.Linear(hidden, channels, dtype=dtype, rngs=rngs)
        self.sigmoid = sigmoid

    def __call__(self, x):
        gate = self.sigmoid(self.excite(nnx.relu(self.squeeze(x.mean((1, 2))))))
        return x * gate[:, None, None, :]


@functools.partial(jax.jit, static_argnums=(1, 2))
def resize_bilinear(x: jax.Array, height: int, width: int) -> jax.Array:
    """Resizes `x` [N, H, W, C] with half-pixel centres and no antialiasing, as PyTorch's `align_corners=False`."""
    rows, columns = bilinear_weights(x.shape[1], height), bilinear_weights(x.shape[2], width)
    x = jnp.einsum("nhwc,ah->nawc", x, rows.astype(x.dtype), precision="highest")
    return jnp.einsum("nawc,bw->nabc", x, columns.astype(x.dtype), precision="highest")


@functools.partial(jax.jit, static_argnums=(1, 2))
def resize_few_channels(x: jax.Array, height: int, width: int) -> jax.Array:
    """Resizes as `resize_bilinear`, channel by channel: faster for few channels, above all backward (no transpose)."""
    planes = jnp.moveaxis(x, 3, 1)
    rows, columns = bilinear_weights(x.shape[1], height), bilinear_weights(x.shape[2], width)
    planes = jnp.matmul(rows.astype(x.dtype), planes, precision="highest")
    # All planes make one matrix product.
    resized = jnp.matmul(planes.reshape(-1, columns.shape[1]), columns.T.astype(x.dtype), precision="highest")
    return jnp.moveaxis(resized.reshape(*planes.shape[:3], width), 1, 3)


@jax.jit
def mix_pixels(weights: jax.Array, x: jax.Array) -> jax.Array:
    """Sums pixels of `x` [N, P, C] by `weights` [Q, P]: [N, Q, C]."""
    return jnp.einsum("qp,npc->nqc", weights.astype(x.dtype), x, precision="highest")


def bilinear_weights(size: int, resized: int) -> np.ndarray:
    """Returns the weights [resized, size] by which an axis is interpolated between the centres of its pixels."""
    centers = (np.arange(resized)[:, None] + 0.5) * size / resized - 0.5
    weights = np.maximum(1 - np.abs(centers - np.arange(size)), 0)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def average_weights(size: int, bins: int) -> np.ndarray:
    """Returns the weights [bins, size] of averages over cells, which may overlap, as PyTorch's `AdaptiveAvgPool2d`."""
    starts, stops = (np.arange(bins) * size // bins, -(-np.arange(1, bins + 1) * size // bins))
    pixels = np.arange(size)
    weights = (pixels >= starts[:, None]) & (pixels < stops[:, None])
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def max_pool(x: jax.Array) -> jax.Array:
    """Takes the maximum of 3x3 pixels of `x` [N, H, W, C] at stride 2, padding 1: [N, ceil(H / 2), ceil(W / 2), C].

    Of equal pixels in a window the first by row has the gradient, as in PyTorch. There is no forward-mode gradient.
    """
    return _max_of_three(_max_of_three(x, 2), 1)


# Written as shifted slices since XLA has a slow gradient of its own pooling on a CPU (select-and-scatter).
@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_three(x, axis):
    before, center, after = _triples(x, axis)
    return jnp.maximum(jnp.maximum(before, center), after)


def _max_of_three_backward(axis, x, g):
    before, center, after = _triples(x, axis)
    is_before = (before >= center) & (before >= after)
    is_center = ~is_before & (center >= after)
    to_after = jnp.where(is_before | is_center, 0, g)
    # The pixel before a window is the one after the window before it.
    to_before = jax.lax.slice_in_dim(jnp.where(is_before, g, 0), 1, None, axis=axis)
    padding = [(0, 0)] * g.ndim
    padding[axis] = (0, 1)
    pixels = jnp.stack([jnp.where(is_center, g, 0), to_after + jnp.pad(to_before, padding)], axis + 1)
    pixels = pixels.reshape(*g.shape[:axis], -1, *g.shape[axis + 1 :])
    return (jax.lax.slice_in_dim(pixels, 0, x.shape[axis], axis=axis),)


_max_of_three.defvjp(lambda x, axis: (_max_of_three(x, axis), x), _max_of_three_backward)


def _triples(x, axis):
    """Returns the pixels before, at and after every other pixel along an axis, -inf outside of `x`."""
    size, padding = -(-x.shape[axis] // 2), [(0, 0)] * x.ndim
    padding[axis] = (1, 2 * size - x.shape[axis])
    padded = jnp.pad(x, padding, constant_values=-jnp.inf)
    return [jax.lax.slice_in_dim(padded, i, i + 2 * size - 1, 2, axis=axis) for i in range(3)]
