"""Fast-SCNN encoder (Poudel, Liwicki and Cipolla, arXiv:1902.04502)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fume_jax.models.depthwise import DepthwiseConv
from fume_jax.models.layers import (
    BatchNorm,
    DepthwiseSeparableConv,
    Pointwise,
    average_weights,
    bilinear_weights,
    mix_pixels,
    stem_conv,
)


class InvertedResidual(nnx.Module):
    """Inverted residual block (MobileNetV2, arXiv:1801.04381), expansion 6, with a shortcut where shapes allow it."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, dtype, rngs: nnx.Rngs):
        hidden = 6 * in_channels
        self.expand = Pointwise(in_channels, hidden, use_bias=False, dtype=dtype, rngs=rngs)
        self.expand_norm = BatchNorm(hidden, dtype=dtype)
        self.depthwise = DepthwiseConv(hidden, stride=stride, dtype=dtype, rngs=rngs)
        self.depthwise_norm = BatchNorm(hidden, dtype=dtype)
        self.project = Pointwise(hidden, out_channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.project_norm = BatchNorm(out_channels, dtype=dtype)
        self.shortcut = stride == 1 and in_channels == out_channels

    def __call__(self, x, present):
        y = nnx.relu6(self.expand_norm(self.expand(x), present))
        y = nnx.relu6(self.depthwise_norm(self.depthwise(y), present))
        y = self.project_norm(self.project(y), present)
        return x + y if self.shortcut else y


class LearningToDownsample(nnx.Module):
    """Three stride-2 convolutions: [N, H, W, C] to [N, H/8, W/8, 64]."""

    def __init__(self, in_channels: int, *, dtype, rngs: nnx.Rngs):
        self.conv = stem_conv(in_channels, 32, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(32, dtype=dtype)
        self.separable1 = DepthwiseSeparableConv(32, 48, stride=2, dtype=dtype, rngs=rngs)
        self.separable2 = DepthwiseSeparableConv(48, 64, stride=2, dtype=dtype, rngs=rngs)

    def __call__(self, x, present):
        x = nnx.relu(self.norm(self.conv(x), present))
        return self.separable2(self.separable1(x, present), present)


class PyramidPooling(nnx.Module):
    """Pyramid pooling (PSPNet, arXiv:1612.01105): context from 1, 2, 3 and 6 bins a side, merged with the input."""

    BINS = (1, 2, 3, 6)
    SHARED = "cells_of_all_branches"  # scope of the operations that only one branch in four needs

    def __init__(self, channels: int, *, dtype, rngs: nnx.Rngs):
        branch = channels // len(self.BINS)
        self.branches = nnx.List([Pointwise(channels, branch, dtype=dtype, rngs=rngs) for _ in self.BINS])
        self.merge = Pointwise(2 * channels, channels, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(channels, dtype=dtype)

    def __call__(self, x, present):
        n, height, width, _ = x.shape
        pool, place, own = self._matrices(height, width)
        cells = mix_pixels(pool, x.reshape(n, height * width, -1))
        # Each branch sees the cells of all, but only its own are placed: so all make one matrix product.
        with jax.named_scope(self.SHARED):
            cells = jnp.concatenate([branch(cells) for branch in self.branches], axis=-1)
        cells = nnx.relu(cells)
        context = mix_pixels(place, own[None].astype(x.dtype) * cells).reshape(x.shape)
        return nnx.relu(self.norm(self.merge(jnp.concatenate([x, context], axis=-1)), present))

    def _matrices(self, height, width):
        """Returns matrices that average pixels to the cells of all branches, place cells, and tell whose a cell is."""
        branches = len(self.BINS)
        pool = [np.kron(average_weights(height, bins), average_weights(width, bins)) for bins in self.BINS]
        place = [np.kron(bilinear_weights(bins, height), bilinear_weights(bins, width)) for bins in self.BINS]
        own = np.repeat(np.eye(branches), [bins**2 for bins in self.BINS], axis=0)
        return np.concatenate(pool), np.concatenate(place, axis=1), np.repeat(own, self.norm.scale.size // branches, 1)


class FastSCNN(nnx.Module):
    """Encoder of one frame into fine features for segmentation and coarse features for everything else."""

    channels = (64, 128)
    strides = (8, 32)
    # Input channels, output channels and stride of the first of three blocks, for each stage.
    STAGES = ((64, 64, 2), (64, 96, 2), (96, 128, 1))

    def __init__(self, in_channels: int = 1, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.downsample = LearningToDownsample(in_channels, dtype=dtype, rngs=rngs)
        self.stages = nnx.List()
        for in_features, features, stride in self.STAGES:
            blocks = [InvertedResidual(in_features, features, stride=stride, dtype=dtype, rngs=rngs)]
            blocks += [InvertedResidual(features, features, stride=1, dtype=dtype, rngs=rngs) for _ in range(2)]
            self.stages.append(nnx.List(blocks))
        self.pyramid = PyramidPooling(self.channels[1], dtype=dtype, rngs=rngs)

    def __call__(self, frames: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes `frames` [N, H, W, C] to `low` [N, H/8, W/8, 64], `high` [N, H/32, W/32, 128], sizes rounded up."""
        low = x = self.downsample(frames, present)
        for stage in self.stages:
            for block in stage:
                x = block(x, present)
        return low, self.pyramid(x, present)
