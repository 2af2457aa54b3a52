"""MobileNetV3 (Howard, Sandler, Chu et al., arXiv:1905.02244) as an encoder."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.depthwise import DepthwiseConv
from fume_jax.models.layers import BatchNorm, ChannelAttention, Pointwise, stem_conv

EPSILON = 1e-3  # of batch norm
ACTIVATIONS = {"relu": nnx.relu, "hard_swish": nnx.hard_swish}


@dataclasses.dataclass(frozen=True)
class Block:
    """Options of an inverted residual block; `size` is the side of its kernels, `gated` says if it has a gate."""

    in_channels: int
    hidden: int
    out_channels: int
    size: int
    stride: int
    gated: bool
    activation: str

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers that the block has, in order."""
        has = {"expand": self.hidden != self.in_channels, "depthwise": True, "gate": self.gated, "project": True}
        return tuple(name for name, there in has.items() if there)

    @property
    def squeezed(self) -> int:
        """Width of the gate: a quarter of the hidden layer, in eights, at most a tenth narrower."""
        quarter = self.hidden // 4
        rounded = max(8, (quarter + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * quarter else rounded + 8


class InvertedResidual(nnx.Module):
    """Expansion, depthwise convolution, gate of the channels and projection, with a shortcut where shapes allow it."""

    def __init__(self, block: Block, *, dtype, rngs: nnx.Rngs):
        hidden, options = block.hidden, {"dtype": dtype, "rngs": rngs}
        self.block = block
        if "expand" in block.layers:
            self.expand = Pointwise(block.in_channels, hidden, use_bias=False, **options)
            self.expand_norm = BatchNorm(hidden, epsilon=EPSILON, dtype=dtype)
        self.depthwise = DepthwiseConv(hidden, size=block.size, stride=block.stride, **options)
        self.depthwise_norm = BatchNorm(hidden, epsilon=EPSILON, dtype=dtype)
        if "gate" in block.layers:
            self.gate = ChannelAttention(hidden, block.squeezed, sigmoid=nnx.hard_sigmoid, **options)
        self.project = Pointwise(hidden, block.out_channels, use_bias=False, **options)
        self.project_norm = BatchNorm(block.out_channels, epsilon=EPSILON, dtype=dtype)
        self.shortcut = block.stride == 1 and block.in_channels == block.out_channels

    def __call__(self, x, present):
        activation, y = ACTIVATIONS[self.block.activation], x
        if "expand" in self.block.layers:
            y = activation(self.expand_norm(self.expand(y), present))
        y = activation(self.depthwise_norm(self.depthwise(y), present))
        if "gate" in self.block.layers:
            y = self.gate(y)
        y = self.project_norm(self.project(y), present)
        return x + y if self.shortcut else y


class MobileNetV3Small(nnx.Module):
    """MobileNetV3-Small up to its last block; the layers after it widen features for its classifier alone."""

    channels = (24, 96)
    strides = (8, 32)
    BLOCKS = (
        Block(16, 16, 16, 3, 2, True, "relu"),
        Block(16, 72, 24, 3, 2, False, "relu"),
        Block(24, 88, 24, 3, 1, False, "relu"),
        Block(24, 96, 40, 5, 2, True, "hard_swish"),
        Block(40, 240, 40, 5, 1, True, "hard_swish"),
        Block(40, 240, 40, 5, 1, True, "hard_swish"),
        Block(40, 120, 48, 5, 1, True, "hard_swish"),
        Block(48, 144, 48, 5, 1, True, "hard_swish"),
        Block(48, 288, 96, 5, 2, True, "hard_swish"),
        Block(96, 576, 96, 5, 1, True, "hard_swish"),
        Block(96, 576, 96, 5, 1, True, "hard_swish"),
    )
    FINE = 3  # blocks up to the fine features

    def __init__(self, in_channels: int = 1, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.conv = stem_conv(in_channels, 16, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(16, epsilon=EPSILON, dtype=dtype)
        self.blocks = nnx.List([InvertedResidual(block, dtype=dtype, rngs=rngs) for block in self.BLOCKS])

    def __call__(self, frames: jax.Array, present: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Encodes `frames` [N, H, W, C] to `low` [N, H/8, W/8, 24], `high` [N, H/32, W/32, 96], sizes rounded up."""
        outputs = [nnx.hard_swish(self.norm(self.conv(frames), present))]
        for block in self.blocks:
            outputs.append(block(outputs[-1], present))
        return outputs[self.FINE], outputs[-1]
