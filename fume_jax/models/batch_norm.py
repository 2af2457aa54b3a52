"""Batch normalisation that leaves absent and padded frames out of its statistics."""

import jax
import jax.numpy as jnp
from flax import nnx


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167) over the frames that are present.

    With `use_running_average` False (see `nnx.Module.train`), the mean and biased variance of the present frames
    normalise, and the running statistics move towards them, the variance unbiased as in `torch.nn.BatchNorm2d`. Where
    no frame is present, the running statistics normalise and stay as they are.

    Under `jax.jit` with a sharded batch the sums run over the global batch.
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
        self.use_running_average = False

    def __call__(self, x: jax.Array, present: jax.Array | None = None) -> jax.Array:
        """Normalises `x` [N, H, W, C]; `present` [N] is 1.0 for frames that count, all of them if None."""
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._update_statistics(x, jnp.ones(x.shape[0]) if present is None else present)
        scale = self.scale[...] * jax.lax.rsqrt(var + self.epsilon)
        shift = self.bias[...] - mean * scale
        return (x.astype(jnp.float32) * scale + shift).astype(self.dtype)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """What `flax.nnx.view` may change."""
        if use_running_average is not None:
            self.use_running_average = use_running_average

    def _update_statistics(self, x, present):
        x = x.astype(jnp.float32)
        count = present.sum() * x.shape[1] * x.shape[2]

        def average(x):
            # Sums over each frame first: the mask then costs nothing at full size, forward or backward. Not a matrix
            # product, which accelerators round to fewer digits than float32 has.
            return (present[:, None] * x.sum((1, 2))).sum(0) / jnp.maximum(count, 1)

        mean = average(x)
        var = jnp.maximum(average(jnp.square(x)) - mean**2, 0)
        anything = count > 0
        mean = jnp.where(anything, mean, self.mean[...])
        var = jnp.where(anything, var, self.var[...])
        unbiased = jnp.where(anything, var * count / jnp.maximum(count - 1, 1), var)
        self.mean[...] += self.momentum * (jax.lax.stop_gradient(mean) - self.mean[...])
        self.var[...] += self.momentum * (jax.lax.stop_gradient(unbiased) - self.var[...])
        return mean, var
