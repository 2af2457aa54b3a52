"""Batch normalisation that leaves absent and padded frames out of its statistics."""

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) over the frames that are present.

    With `use_running_average` False (see `nnx.Module.train`), the mean and biased variance of the present frames
    normalise, and the running statistics move towards them, the variance unbiased as in `torch.nn.BatchNorm2d`. Where
    no frame is present, the running statistics normalise and stay as they are.

    Under `jax.jit` with a sharded batch the sums run over the global batch: devices wait for each other at every layer.
    With `groups` above 1 (see `nnx.Module.set_attributes`) the batch is taken in that many groups of consecutive
    frames, each normalised by its own statistics (ghost batch norm: Hoffer, Hubara and Soudry, arXiv:1705.08741), and
    the running statistics move towards the mean over the groups that have a present frame. Groups that lie each on one
    device need nothing of the others. The numbers do not depend on how many devices there are.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-5, momentum: float = 0.1, dtype=jnp.float32):
        """`momentum` is the share of the new statistics in the running ones, as PyTorch counts it."""
        self.scale = nnx.Param(jnp.ones(channels))
        self.bias = nnx.Param(jnp.zeros(channels))
        self.mean = nnx.BatchStat(jnp.zeros(channels))
        self.var = nnx.BatchStat(jnp.ones(channels))
        self.epsilon = epsilon
        self.momentum = momentum
        self.dtype = dtype
        self.groups = 1
        self.use_running_average = False

    def __call__(self, x: jax.Array, present: jax.Array | None = None) -> jax.Array:
        """Normalises `x` [N, H, W, C]; `present` [N] is 1.0 for frames that count, all of them if None."""
        if self.use_running_average:
            return self._normalise(x, self.mean[...], self.var[...])
        present = jnp.ones(x.shape[0]) if present is None else present
        if self.groups == 1:
            y, mean, var, _ = self._normalise_by_itself(x, present)
        else:
            grouped = (array.reshape(self.groups, -1, *array.shape[1:]) for array in (x, present))
            y, means, variances, anything = jax.vmap(self._normalise_by_itself)(*grouped)
            y = y.reshape(x.shape)
            # A group without frames has the running statistics, and no part in where they move.
            counted = jnp.maximum(anything.sum(), 1)
            mean = self.mean[...] + (means - self.mean[...]).sum(0) / counted
            var = self.var[...] + (variances - self.var[...]).sum(0) / counted
        self.mean[...] += self.momentum * (jax.lax.stop_gradient(mean) - self.mean[...])
        self.var[...] += self.momentum * (jax.lax.stop_gradient(var) - self.var[...])
        return y

    def set_view(self, use_running_average: bool | None = None) -> None:
        """What `flax.nnx.view` may change."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def _normalise(self, x, mean, var):
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * scale
        return (x.astype(jnp.float32) * scale + shift).astype(self.dtype)

    def _normalise_by_itself(self, x, present):
        """`x` normalised by its own statistics, those, the variance unbiased, and whether any frame is present."""
        frames = x.astype(jnp.float32)
        count = present.sum() * x.shape[1] * x.shape[2]

        def average(x):
            # Sums over each frame first: the mask then costs nothing at full size, forward or backward. Not a matrix
            # product, which accelerators round to fewer digits than float32 has.
            return (present[:, None] * x.sum((1, 2))).sum(0) / jnp.maximum(count, 1)

        mean = average(frames)
        var = jnp.maximum(average(jnp.square(frames)) - mean**2, 0)
        anything = count > 0
        mean = jnp.where(anything, mean, self.mean[...])
        var = jnp.where(anything, var, self.var[...])
        unbiased = jnp.where(anything, var * count / jnp.maximum(count - 1, 1), var)
        return self._normalise(x, mean, var), mean, unbiased, anything
