"""Multiply-accumulate operations of a model, counted from what it computes and not from how it is lowered."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from fume_jax.models.backbones import BACKBONES
from fume_jax.models.fume import FUME
from fume_jax.models.layers import resize_few_channels


def count_macs(model: FUME, height: int, width: int) -> int:
    """Multiply-accumulates of convolutions, linear layers, attention and pooling on one pair of frames.

    Interpolation, normalisation and activation are left out, as is usual. `model` may be abstract.
    """
    graphdef, state = nnx.split(nnx.view(model, deterministic=True, use_running_average=True))
    frame, modality_mask = jnp.zeros((1, height, width, 1)), jnp.ones((1, 2))
    computed = _count(jax.make_jaxpr(lambda s: nnx.merge(graphdef, s)(frame, frame, modality_mask))(state).jaxpr)
    # A segmentation head's 1x1 convolution of upsampled features is computed before upsampling, where it costs less.
    backbone = BACKBONES[model.options.backbone]
    fine, coarse = (math.ceil(height / stride) * math.ceil(width / stride) for stride in backbone.strides)
    moved = len(model.options.segmented) * (fine - coarse) * backbone.channels[1] ** 2
    return computed + moved


def _count(jaxpr):
    return sum(_macs(equation) for equation in jaxpr.eqns)


def _macs(equation):
    kind, output = equation.primitive.name, equation.outvars[0].aval
    if kind == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return output.size * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    if kind == "conv_general_dilated":
        return output.size * math.prod(equation.invars[1].aval.shape[:-1])  # kernel HWIO: all but the output channels
    if kind == "custom_vjp_call":
        # The depthwise convolution, the one function with a gradient of its own, whatever it is lowered to.
        return output.size * math.prod(equation.invars[1].aval.shape[:-1])
    if equation.params.get("name") in ("_resize", resize_few_channels.__name__):
        return 0
    inner = (equation.params.get(key) for key in ("jaxpr", "call_jaxpr"))
    return sum(_count(jaxpr.jaxpr) for jaxpr in inner if jaxpr is not None)
