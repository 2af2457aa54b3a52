"""ResNet-50 with the features that DeepLabV3+ decodes (Chen, Zhu, Papandreou et al., arXiv:1802.02611)."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.layers import BatchNorm, Pointwise
from fume_jax.models.resnet import Bottleneck, ResNet

RATES = (6, 12, 18)  # dilations of the pyramid's 3x3 convolutions, for a stride of 16


class ConvNorm(nnx.Module):
    """1x1 convolution or, given a `rate`, 3x3 convolution with that dilation; batch norm and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, rate: int | None = None, *, dtype, rngs: nnx.Rngs):
        if rate is None:
            self.conv = Pointwise(in_channels, out_channels, use_bias=False, dtype=dtype, rngs=rngs)
        else:
            options = {"kernel_dilation": rate, "padding": rate, "use_bias": False}
            self.conv = nnx.Conv(in_channels, out_channels, (3, 3), **options, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(out_channels, dtype=dtype)

    def __call__(self, x, present):
        return nnx.relu(self.norm(self.conv(x), present))


class AtrousPyramidPooling(nnx.Module):
    """Atrous spatial pyramid pooling (DeepLabV3, arXiv:1706.05587).

    Merges a 1x1 convolution, 3x3 convolutions at three rates and the average of the whole map. There is no dropout:
    the heads have their own.
    """

    def __init__(self, in_channels: int, channels: int, *, dtype, rngs: nnx.Rngs):
        rates = (None, *RATES, None)
        self.branches = nnx.List([ConvNorm(in_channels, channels, r, dtype=dtype, rngs=rngs) for r in rates])
        self.merge = ConvNorm(len(rates) * channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x, present):
        *local, average = self.branches
        context = [branch(x, present) for branch in local]
        pooled = average(x.mean((1, 2), keepdims=True), present)
        context.append(jnp.broadcast_to(pooled, context[0].shape))
        return self.merge(jnp.concatenate(context, axis=-1), present)


class ResNet50DeepLabV3Plus(nnx.Module):
    """ResNet-50 at an output stride of 16 with the two maps that a DeepLabV3+ decoder reads; the heads decode them.

    The pyramid has 128 channels, as many as the coarse features of Fast-SCNN have, not 256 as in the paper: fusion and
    heads then are those of FUME, and FUME with two of these encoders is of the size of one DeepLabV3+ with two.
    """

    channels = (48, 128)
    strides = (4, 16)

    def __init__(self, in_channels: int = 1, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.backbone = ResNet(Bottleneck, (3, 4, 6, 3), in_channels, dilated=True, dtype=dtype, rngs=rngs)
        self.low = ConvNorm(256, self.channels[0], dtype=dtype, rngs=rngs)
        self.pyramid = AtrousPyramidPooling(2048, self.channels[1], dtype=dtype, rngs=rngs)

    def __call__(self, frames: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes `frames` [N, H, W, C] to `low` [N, H/4, W/4, 48], `high` [N, H/16, W/16, 128], sizes rounded up."""
        fine, _, _, coarse = self.backbone.features(frames, present)
        return self.low(fine, present), self.pyramid(coarse, present)
