"""Residual networks (He, Zhang, Ren and Sun, arXiv:1512.03385) as encoders."""

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.layers import BatchNorm, Pointwise, max_pool


class Shortcut(nnx.Module):
    """Strided 1x1 convolution and batch norm, where a block changes the shape of its input."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dtype, rngs: nnx.Rngs):
        self.conv = Pointwise(in_channels, out_channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(out_channels, dtype=dtype)
        self.stride = stride

    def __call__(self, x, present):
        return self.norm(self.conv(x[:, :: self.stride, :: self.stride]), present)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, *, stride: int, dilation: int, dtype, rngs: nnx.Rngs):
        self.conv1 = _conv3x3(in_channels, width, stride=stride, dilation=dilation, dtype=dtype, rngs=rngs)
        self.norm1 = BatchNorm(width, dtype=dtype)
        self.conv2 = _conv3x3(width, width, dilation=dilation, dtype=dtype, rngs=rngs)
        self.norm2 = BatchNorm(width, dtype=dtype)
        self.shortcut = _shortcut(in_channels, width, stride=stride, dtype=dtype, rngs=rngs)

    def __call__(self, x, present):
        y = nnx.relu(self.norm1(self.conv1(x), present))
        y = self.norm2(self.conv2(y), present)
        return nnx.relu(y + (self.shortcut(x, present) if self.shortcut else x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolution, to four times `width`, and a shortcut; the 3x3 convolution has the stride."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, *, stride: int, dilation: int, dtype, rngs: nnx.Rngs):
        out_channels = self.expansion * width
        self.conv1 = Pointwise(in_channels, width, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm1 = BatchNorm(width, dtype=dtype)
        self.conv2 = _conv3x3(width, width, stride=stride, dilation=dilation, dtype=dtype, rngs=rngs)
        self.norm2 = BatchNorm(width, dtype=dtype)
        self.conv3 = Pointwise(width, out_channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm3 = BatchNorm(out_channels, dtype=dtype)
        self.shortcut = _shortcut(in_channels, out_channels, stride=stride, dtype=dtype, rngs=rngs)

    def __call__(self, x, present):
        y = nnx.relu(self.norm1(self.conv1(x), present))
        y = nnx.relu(self.norm2(self.conv2(y), present))
        y = self.norm3(self.conv3(y), present)
        return nnx.relu(y + (self.shortcut(x, present) if self.shortcut else x))


class ResNet(nnx.Module):
    """Stem and four stages of `depths` blocks, without the classifier.

    With `dilated` the last stage has dilated convolutions in place of its stride (DeepLab, arXiv:1606.00915).
    """

    # Width and stride of each stage.
    STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))

    def __init__(self, block, depths, in_channels: int = 1, *, dilated: bool = False, dtype, rngs: nnx.Rngs):
        self.conv = nnx.Conv(in_channels, 64, (7, 7), strides=2, padding=3, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(64, dtype=dtype)
        self.stages = nnx.List()
        channels = 64
        for depth, (width, stride) in zip(depths, self.STAGES, strict=True):
            dilation = 2 if dilated and width == self.STAGES[-1][0] else 1
            # The first block reads pixels that no stride has thinned out: only the blocks after it are dilated.
            options = [{"stride": stride // dilation, "dilation": 1}] + [{"stride": 1, "dilation": dilation}] * depth
            blocks = nnx.List()
            for option in options[:depth]:
                blocks.append(block(channels, width, **option, dtype=dtype, rngs=rngs))
                channels = block.expansion * width
            self.stages.append(blocks)

    def features(self, frames: jax.Array, present: jax.Array) -> list[jax.Array]:
        """Encodes `frames` [N, H, W, C] to the features of each stage, at strides 4, 8, 16 and 32 or, dilated, 16."""
        x, outputs = max_pool(nnx.relu(self.norm(self.conv(frames), present))), []
        for stage in self.stages:
            for block in stage:
                x = block(x, present)
            outputs.append(x)
        return outputs


class ResNet18(ResNet):
    """ResNet-18 without its classifier."""

    channels = (128, 512)
    strides = (8, 32)

    def __init__(self, in_channels: int = 1, *, dtype=jnp.float32, rngs: nnx.Rngs):
        super().__init__(BasicBlock, (2, 2, 2, 2), in_channels, dtype=dtype, rngs=rngs)

    def __call__(self, frames: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes `frames` [N, H, W, C] to `low` [N, H/8, W/8, 128], `high` [N, H/32, W/32, 512], sizes rounded up."""
        _, low, _, high = self.features(frames, present)
        return low, high


def _conv3x3(in_channels, out_channels, *, stride=1, dilation=1, dtype, rngs):
    options = {"strides": stride, "kernel_dilation": dilation, "padding": dilation, "use_bias": False}
    return nnx.Conv(in_channels, out_channels, (3, 3), **options, dtype=dtype, rngs=rngs)


def _shortcut(in_channels, out_channels, *, stride, dtype, rngs):
    if stride == 1 and in_channels == out_channels:
        return None
    return Shortcut(in_channels, out_channels, stride=stride, dtype=dtype, rngs=rngs)
