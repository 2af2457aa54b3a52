"""Task heads: segmentation of one gas, classification of the pH state."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.layers import (
    BatchNorm,
    ChannelAttention,
    DepthwiseSeparableConv,
    Pointwise,
    resize_bilinear,
    resize_few_channels,
)
from fume_jax.schema import CLASSES, GAS, MASK_CLASSES

# Of a logit, so that gas that is lowered to the level of another class stays below it.
ROUNDING = 1e-2


class FeatureFusion(nnx.Module):
    """Adds upsampled coarse features to fine ones and gates the channels of the sum."""

    def __init__(self, low_channels: int, channels: int, *, dtype, rngs: nnx.Rngs):
        self.low = DepthwiseSeparableConv(low_channels, channels, dtype=dtype, rngs=rngs)
        self.high = Pointwise(channels, channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.high_norm = BatchNorm(channels, dtype=dtype)
        self.gate = ChannelAttention(channels, channels // 4, dtype=dtype, rngs=rngs)

    def __call__(self, low, high, present):
        # The 1x1 convolution commutes with interpolation and costs a sixteenth before it. Batch norm does not commute:
        # its statistics are those of the upsampled map.
        high = resize_bilinear(self.high(high), *low.shape[1:3])
        return self.gate(nnx.relu(self.low(low, present) + self.high_norm(high, present)))


class SegmentationHead(nnx.Module):
    """Computes per-pixel logits of background, tube and gas from the features of one gas's frame."""

    def __init__(self, channels: tuple[int, int], *, dtype=jnp.float32, rngs: nnx.Rngs):
        low, high = channels  # of the fine and the coarse features
        self.fusion = FeatureFusion(low, high, dtype=dtype, rngs=rngs)
        self.separable1 = DepthwiseSeparableConv(high, high, dtype=dtype, rngs=rngs)
        self.separable2 = DepthwiseSeparableConv(high, high, dtype=dtype, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, broadcast_dims=(1, 2))
        self.classifier = Pointwise(high, len(MASK_CLASSES), dtype=dtype, rngs=rngs)

    def __call__(
        self, low: jax.Array, high: jax.Array, present: jax.Array, *, size: Sequence[int], rngs: nnx.Rngs | None = None
    ) -> jax.Array:
        """Maps fine features `low` and coarse ones `high`, both [N, h, w, C], to logits, float32 [N, *size, 3]."""
        x = self.fusion(low, high, present)
        x = self.separable2(self.separable1(x, present), present)
        logits = self.classifier(self.dropout(x, rngs=rngs))
        return resize_few_channels(logits.astype(jnp.float32), *size)

    def favor_gas(self, logit: float) -> None:
        """Adds a number to the logit of gas everywhere."""
        self.classifier.bias[...] = self.classifier.bias[...].at[GAS].add(logit)


class GasMargin(nnx.Module):
    """Takes gas out of the logits of frames in which it leads the other classes by less than a margin everywhere.

    What is taken for gas and is none rarely looks so with certainty anywhere; gas mostly does somewhere. `train()` has
    it pass logits as they are.
    """

    def __init__(self, margin: float):
        self.margin = margin
        self.deterministic = False

    def __call__(self, logits: jax.Array) -> jax.Array:
        """Maps logits [N, H, W, 3] to those in which gas leads nowhere, also once enlarged, or to themselves."""
        if not (self.deterministic and self.margin):
            return logits
        gas, others = logits[..., GAS], logits[..., :GAS]
        lead = (gas - others.max(-1)).max((1, 2))
        # Between pixels of which one is tube and the other background, gas may lead though it does so in neither.
        between = _over_neighbors(jnp.maximum, gas) - _over_neighbors(jnp.minimum, others).max(-1)
        lowered = jnp.where(lead < self.margin, jnp.maximum(between.max((1, 2)), 0) + ROUNDING, 0)
        return logits.at[..., GAS].add(-lowered[:, None, None])

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets what `flax.nnx.view` may change."""
        if deterministic is not None:
            self.deterministic = deterministic


def _over_neighbors(reduce, x):
    """Reduces neighbours of `x` [N, H, W, ...], two by two: [N, H - 1, W - 1, ...]."""
    x = reduce(x[:, 1:], x[:, :-1])
    return reduce(x[:, :, 1:], x[:, :, :-1])


class ClassificationHead(nnx.Module):
    """Computes pH-state logits from a feature map by a global average and a small MLP with dropout 0.5."""

    def __init__(self, features: int, hidden: Sequence[int], *, dtype=jnp.float32, rngs: nnx.Rngs):
        sizes = [features, *hidden]
        self.hidden = nnx.List([nnx.Linear(a, b, dtype=dtype, rngs=rngs) for a, b in itertools.pairwise(sizes)])
        self.dropout = nnx.Dropout(0.5)
        self.logits = nnx.Linear(sizes[-1], len(CLASSES), dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, embedding: jax.Array | None = None, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Maps `x` [N, H, W, C] to logits, float32 [N, 3]; an `embedding` [E] is appended to each average."""
        x = x.mean((1, 2))
        if embedding is not None:
            x = jnp.concatenate([x, jnp.broadcast_to(embedding, (x.shape[0], embedding.size))], axis=-1)
        for layer in self.hidden:
            x = self.dropout(nnx.relu(layer(x)), rngs=rngs)
        return self.logits(x).astype(jnp.float32)
