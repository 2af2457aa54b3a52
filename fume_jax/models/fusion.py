"""Fusion of CO2 and CH4 features: by self-, cross-modal and channel attention, or by a 1x1 convolution."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.layers import BatchNorm, CallAlike, ChannelAttention, Pointwise


class SpatialAttention(nnx.Module):
    """Unscaled dot-product attention from every position of one map to every position of another.

    `gamma`, initially 0, scales the result, which the caller adds to the query's map (SAGAN, arXiv:1805.08318).
    """

    def __init__(self, channels: int, key_channels: int, *, dtype, rngs: nnx.Rngs):
        self.query = Pointwise(channels, key_channels, dtype=dtype, rngs=rngs)
        self.key = Pointwise(channels, key_channels, dtype=dtype, rngs=rngs)
        self.value = Pointwise(channels, channels, dtype=dtype, rngs=rngs)
        self.gamma = nnx.Param(jnp.zeros(1))

    def __call__(self, x: jax.Array, context: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Attends from `x` [N, H, W, C] to `context` [N, H, W, C].

        Returns gamma times the result, shaped as `x`, and the weights.
        """
        weights, gamma = self.weights(x, context), self.gamma[...].astype(x.dtype)
        y = jnp.einsum("nhwij,nijc->nhwc", weights.astype(x.dtype), self.value(context))
        return jnp.expand_dims(gamma, (0, 1, 2)) * y, weights

    def weights(self, x: jax.Array, context: jax.Array) -> jax.Array:
        """Returns the attention of `x` to `context`, float32 [N, H, W, H, W]; it sums to 1 over the last two axes."""
        scores = jnp.einsum("nhwd,nijd->nhwij", self.query(x), self.key(context), preferred_element_type=jnp.float32)
        return jax.nn.softmax(scores, axis=(-2, -1))


class AttentionFusion(nnx.Module):
    """Fuses two streams of features; each attends to itself, then, if `cross`, to the other where both are present.

    Attention across gases depends on each sample alone, never on its neighbours in the batch.
    """

    def __init__(self, channels: int, *, cross: bool = True, dtype=jnp.float32, rngs: nnx.Rngs):
        self.cross = cross
        self.call_alike = CallAlike()
        self.co2_attention = SpatialAttention(channels, channels // 8, dtype=dtype, rngs=rngs)
        self.ch4_attention = SpatialAttention(channels, channels // 8, dtype=dtype, rngs=rngs)
        if cross:
            self.cross_attention = SpatialAttention(channels, channels // 2, dtype=dtype, rngs=rngs)
        self.channel_attention = ChannelAttention(2 * channels, channels // 8, dtype=dtype, rngs=rngs)
        self.conv = nnx.Conv(2 * channels, channels, (3, 3), padding=1, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(channels, dtype=dtype)

    def __call__(self, co2: jax.Array, ch4: jax.Array, modality_mask: jax.Array) -> jax.Array:
        """Fuses `co2` and `ch4` [B, H, W, C] under `modality_mask` [B, 2] into [B, H, W, C]."""
        present = modality_mask.astype(co2.dtype)[:, :, None, None, None]
        co2, ch4, _ = self.attend(co2 * present[:, 0], ch4 * present[:, 1], present[:, 0] * present[:, 1])
        fused = self.conv(self.channel_attention(jnp.concatenate([co2, ch4], axis=-1)))
        return nnx.relu(self.norm(fused, modality_mask.max(axis=1)))

    def attend(self, co2: jax.Array, ch4: jax.Array, both: jax.Array) -> tuple[jax.Array, jax.Array, list[jax.Array]]:
        """Adds to each map [B, H, W, C] what it attends to, of the other one where `both` [B, 1, 1, 1] is 1.

        Returns both maps, and the weights of each by itself, then of each on the other, if `cross`.
        """
        own = self.call_alike([self.co2_attention, self.ch4_attention], (co2, ch4), (co2, ch4))
        (own_co2, co2_weights), (own_ch4, ch4_weights) = own
        co2, ch4, weights = co2 + own_co2, ch4 + own_ch4, [co2_weights, ch4_weights]
        if self.cross:
            # Both directions have the same weights, so they are one batch.
            others, looks = self.cross_attention(jnp.concatenate([co2, ch4]), jnp.concatenate([ch4, co2]))
            co2, ch4 = (x + both * y for x, y in zip((co2, ch4), jnp.split(others, 2), strict=True))
            weights += jnp.split(looks, 2)
        return co2, ch4, weights


class ConvFusion(nnx.Module):
    """Fuses two streams by a 1x1 convolution of their concatenation or, if `mean`, of their mean over present gases.

    Concatenation ignores the modality mask: an absent gas has the features of a frame of zeros.
    """

    def __init__(self, channels: int, *, mean: bool, dtype=jnp.float32, rngs: nnx.Rngs):
        self.mean = mean
        self.merge = Pointwise(channels if mean else 2 * channels, channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.merge_norm = BatchNorm(channels, dtype=dtype)

    def __call__(self, co2: jax.Array, ch4: jax.Array, modality_mask: jax.Array) -> jax.Array:
        """Fuses `co2` and `ch4` as `AttentionFusion` does."""
        if self.mean:
            weights = modality_mask / jnp.maximum(modality_mask.sum(1, keepdims=True), 1)
            weights = weights.astype(co2.dtype)[:, :, None, None, None]
            merged = self.merge(co2 * weights[:, 0] + ch4 * weights[:, 1])
        else:
            merged = self.merge(jnp.concatenate([co2, ch4], axis=-1))
        return nnx.relu(self.merge_norm(merged, modality_mask.max(axis=1)))
