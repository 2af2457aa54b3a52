"""From the names and layouts of parameters in a PyTorch state dict to those of a Flax model.

A parameter is found by renaming its path, part by part, with `RENAMES`; its layout follows from its rank: PyTorch
keeps output channels first (`OIHW`), Flax last (`HWIO`), and a 1x1 convolution here is a matrix.
"""

import re
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fume_jax.models import create_model

# Applied in this order to the dotted path of a parameter.
RENAMES = (
    (r"^encoder\.", "co2_encoder."),
    (r"downsample\.conv\.", "learning_to_downsample.conv.conv."),
    (r"downsample\.norm\.", "learning_to_downsample.conv.bn."),
    (r"downsample\.separable(\d)\.", r"learning_to_downsample.dsconv\1."),
    (r"stages\.(\d)\.", lambda m: f"global_feature_extractor.bottleneck{int(m[1]) + 1}."),
    (r"\.expand\.", ".conv.0."),
    (r"\.expand_norm\.", ".conv.1."),
    (r"(bottleneck\d\.\d)\.depthwise\.", r"\1.conv.3."),
    (r"\.depthwise_norm\.", ".conv.4."),
    (r"\.project\.", ".conv.6."),
    (r"\.project_norm\.", ".conv.7."),
    (r"pyramid\.branches\.(\d)\.", lambda m: f"global_feature_extractor.ppm.conv{int(m[1]) + 1}.conv."),
    (r"pyramid\.merge\.", "global_feature_extractor.ppm.out_conv.conv."),
    (r"pyramid\.norm\.", "global_feature_extractor.ppm.out_conv.bn."),
    (r"^fusion\.(co2|ch4)_attention\.", r"fusion.self_att_\1."),
    (r"^fusion\.cross_attention\.", "fusion.cross_att."),
    (r"\.(query|key|value)\.", r".\1_conv."),
    (r"channel_attention\.squeeze\.", "channel_att.fc1."),
    (r"channel_attention\.excite\.", "channel_att.fc2."),
    (r"^fusion\.conv\.", "fusion.fusion_conv.0."),
    (r"^fusion\.norm\.", "fusion.fusion_conv.1."),
    (r"seg_head\.separable(\d)\.", lambda m: f"seg_head.classifier.{int(m[1]) - 1}."),
    (r"seg_head\.classifier\.(kernel|bias)", r"seg_head.classifier.3.\1"),
    (r"seg_head\.fusion\.low\.", "seg_head.feature_fusion.dwconv."),
    (r"seg_head\.fusion\.high\.", "seg_head.feature_fusion.conv_high.0."),
    (r"seg_head\.fusion\.high_norm\.", "seg_head.feature_fusion.conv_high.1."),
    (r"seg_head\.fusion\.gate\.squeeze\.", "seg_head.feature_fusion.attention.1."),
    (r"seg_head\.fusion\.gate\.excite\.", "seg_head.feature_fusion.attention.3."),
    (r"^cls_head\.hidden\.(\d)\.", lambda m: f"cls_head.{3 * int(m[1]) + 2}."),
    (r"^cls_head\.logits\.", "cls_head.8."),
    (r"\.norm\.", ".bn."),
    (r"\.(kernel|scale)$", ".weight"),
    (r"\.mean$", ".running_mean"),
    (r"\.var$", ".running_var"),
)

# Matrices that are linear layers in PyTorch; every other one is a 1x1 convolution there.
LINEAR_KEYS = re.compile(r"channel_att\.|^cls_head\.")


def state_dict_key(path: tuple) -> str:
    """The state-dict key of the parameter at `path` of a model's state."""
    key = ".".join(str(part) for part in path)
    for pattern, replacement in RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def to_torch_layout(key: str, array: np.ndarray) -> np.ndarray:
    """Moves the axes of a Flax parameter to PyTorch's order."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2:
        return array.T if LINEAR_KEYS.search(key) else array.T[:, :, None, None]
    return array


def from_torch_layout(array: np.ndarray, ndim: int) -> np.ndarray:
    """Moves the axes of a PyTorch parameter to Flax's order; `ndim` is the rank it has there."""
    if ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if ndim == 2:
        return array.reshape(array.shape[:2]).T
    return array


def from_state_dict(name: str, state_dict: Mapping[str, np.ndarray]) -> nnx.Module:
    """Creates a model with the parameters of a PyTorch state dict.

    Args:
      name: of the model, one of `fume_jax.models.MODELS`.
      state_dict: key to array (anything `numpy.asarray` takes). A shared encoder is listed twice, as `co2_encoder.*`
        and `ch4_encoder.*`, with equal values.

    Returns:
      The model in evaluation mode, float32.

    Raises:
      ValueError: if keys are missing, unexpected or misshapen, or the two listings of a shared encoder differ; all
        faults are listed.
    """
    graphdef, state = nnx.split(nnx.eval_shape(lambda: create_model(name, rngs=nnx.Rngs(0))))
    flat = nnx.to_flat_state(state)
    keys = [state_dict_key(path) for path, _ in flat]
    arrays = {key: np.asarray(value) for key, value in state_dict.items()}
    shapes = {
        key: to_torch_layout(key, np.broadcast_to(np.float32(0), variable.shape)).shape
        for key, (_, variable) in zip(keys, flat, strict=True)
    }
    _check(name, arrays, shapes, shared_encoder=any(path[0] == "encoder" for path, _ in flat))
    leaves = [
        (path, variable.replace(jnp.asarray(from_torch_layout(arrays[key], len(variable.shape)), jnp.float32)))
        for key, (path, variable) in zip(keys, flat, strict=True)
    ]
    model = nnx.merge(graphdef, nnx.from_flat_state(leaves))
    model.eval()
    return model


def _check(name, arrays, shapes, *, shared_encoder):
    expected = dict(shapes)
    expected |= {key.replace("running_mean", "num_batches_tracked"): () for key in shapes if "running_mean" in key}
    twins = {}
    if shared_encoder:
        twins = {key.replace("co2_", "ch4_", 1): key for key in expected if key.startswith("co2_encoder.")}
        expected |= {twin: expected[key] for twin, key in twins.items()}
    faults = [f"missing: {key}" for key in expected if key not in arrays]
    faults += [f"unexpected: {key}" for key in arrays if key not in expected]
    faults += [
        f"misshapen: {key} is {arrays[key].shape}, expected {shape}"
        for key, shape in expected.items()
        if key in arrays and arrays[key].shape != shape
    ]
    if not faults:
        faults = [f"differs from {key}: {twin}" for twin, key in twins.items() if (arrays[twin] != arrays[key]).any()]
    if faults:
        raise ValueError(f"The state dict does not fit {name!r}, {len(faults)} faults:\n  " + "\n  ".join(faults))
