"""Multiply-accumulate operations of a model, counted in its jaxpr and so independent of how it is lowered."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.backbones import BACKBONES
from fume_jax.models.fast_scnn import PyramidPooling
from fume_jax.models.fume import FUME
from fume_jax.models.layers import mix_pixels, resize_bilinear, resize_few_channels

UNCOUNTED = tuple(function.__name__ for function in (mix_pixels, resize_bilinear, resize_few_channels))


def count_macs(model: FUME, height: int, width: int) -> int:
    """Counts multiply-accumulates of convolutions, linear layers and attention on one pair of frames.

    Pooling, interpolation, normalisation and activation do not count, as is usual. `model` may be abstract.
    """
    graphdef, state = nnx.split(nnx.view(model, deterministic=True, use_running_average=True, together=False))
    frame, modality_mask = jnp.zeros((1, height, width, 1)), jnp.ones((1, 2))
    computed = _count(jax.make_jaxpr(lambda s: nnx.merge(graphdef, s)(frame, frame, modality_mask))(state).jaxpr)
    # By definition a segmentation head convolves upsampled features (1x1); the code upsamples last, which costs less.
    backbone = BACKBONES[model.options.backbone]
    fine, coarse = (math.ceil(height / stride) * math.ceil(width / stride) for stride in backbone.strides)
    return computed + len(model.options.segmented) * (fine - coarse) * backbone.channels[1] ** 2


def _count(jaxpr):
    return sum(_macs(equation) for equation in jaxpr.eqns)


def _macs(equation):
    kind, output = equation.primitive.name, equation.outvars[0].aval
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        macs = output.size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        # By definition a branch of pyramid pooling convolves its own cells alone.
        return (
            macs // len(PyramidPooling.BINS) if PyramidPooling.SHARED in str(equation.source_info.name_stack) else macs
        )
    if kind in ("conv_general_dilated", "custom_vjp_call"):
        if len(equation.invars) == 1:
            return 0  # a maximum over pixels
        # The depthwise convolution has a gradient of its own too, whatever it is lowered to. The axes of a kernel are
        # HWIO: all but the output channels count.
        return output.size * math.prod(equation.invars[1].aval.shape[:-1])
    if equation.params.get("name") in UNCOUNTED:
        return 0
    inner = (equation.params.get(key) for key in ("jaxpr", "call_jaxpr"))
    return sum(_count(jaxpr.jaxpr) for jaxpr in inner if jaxpr is not None)
