"""Between the names and layouts of parameters in a PyTorch state dict and those of a Flax model.

A parameter is found by renaming its path, part by part, with `RENAMES`; its layout follows from its rank: PyTorch
keeps output channels first (`OIHW`), Flax last (`HWIO`), and a 1x1 convolution here is a matrix.
"""

import re
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from flax import nnx

from fume_jax.models import FUME, Architecture, create_model

# Applied in this order to the dotted path of a parameter.
RENAMES = (
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
    (r"^fusion\.merge\.", "fusion.0."),
    (r"^fusion\.merge_norm\.", "fusion.1."),
    (r"seg_head\.separable(\d)\.", lambda m: f"seg_head.classifier.{int(m[1]) - 1}."),
    (r"seg_head\.classifier\.(kernel|bias)", r"seg_head.classifier.3.\1"),
    (r"seg_head\.fusion\.low\.", "seg_head.feature_fusion.dwconv."),
    (r"seg_head\.fusion\.high\.", "seg_head.feature_fusion.conv_high.0."),
    (r"seg_head\.fusion\.high_norm\.", "seg_head.feature_fusion.conv_high.1."),
    (r"seg_head\.fusion\.gate\.squeeze\.", "seg_head.feature_fusion.attention.1."),
    (r"seg_head\.fusion\.gate\.excite\.", "seg_head.feature_fusion.attention.3."),
    (r"\.norm\.", ".bn."),
    (r"\.(kernel|scale|embedding)$", ".weight"),
    (r"\.mean$", ".running_mean"),
    (r"\.var$", ".running_var"),
)

# Matrices that are linear layers in PyTorch, one that is a table of rows; every other one is a 1x1 convolution there.
LINEAR_KEYS = re.compile(r"channel_att\.|^cls_head\.|^classifier\.")
TABLE_KEY = "gas_embedding.weight"


def state_dict_key(path: tuple, options: Architecture) -> str:
    """The state-dict key of the parameter at `path` of a model's state."""
    key = ".".join(str(part) for part in path)
    for pattern, replacement in (*RENAMES, *_renames_of(options)):
        key = re.sub(pattern, replacement, key)
    return key


def _renames_of(options):
    # Linear layer, ReLU and dropout in turns; pooling and flattening come first unless the gas is told in between.
    head, first = ("classifier", 0) if options.gas_embedding else ("cls_head", 2)
    yield r"^cls_head\.hidden\.(\d)\.", lambda m: f"{head}.{3 * int(m[1]) + first}."
    yield r"^cls_head\.logits\.", f"{head}.{3 * len(options.hidden) + first}."
    if _lists_encoder_twice(options):
        yield r"^encoder\.", "co2_encoder."


def _lists_encoder_twice(options):
    return options.has_streams and options.share_encoder


def to_torch_layout(key: str, array: np.ndarray) -> np.ndarray:
    """Moves the axes of a Flax parameter to PyTorch's order."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if array.ndim == 2 and key != TABLE_KEY:
        return array.T if LINEAR_KEYS.search(key) else array.T[:, :, None, None]
    return array


def from_torch_layout(key: str, array: np.ndarray, ndim: int) -> np.ndarray:
    """Moves the axes of a PyTorch parameter to Flax's order; `ndim` is the rank it has there."""
    if ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if ndim == 2 and key != TABLE_KEY:
        return array.reshape(array.shape[:2]).T
    return array


def from_state_dict(name: str, state_dict: Mapping[str, np.ndarray], **options: str | None) -> FUME:
    """Creates a model with the parameters of a PyTorch state dict.

    Args:
      name: of the model, one of `fume_jax.models.MODELS`.
      state_dict: key to array (anything `numpy.asarray` takes). An encoder that two gases share is listed twice, as
        `co2_encoder.*` and `ch4_encoder.*`, with equal values.
      **options: `encoder`, `fusion`, `gas` and `tasks` of `fume_jax.models.create_model`.

    Returns:
      The model in evaluation mode, float32.

    Raises:
      ValueError: if there is no such model, or keys are missing, unexpected or misshapen, or the two listings of a
        shared encoder differ; all faults are listed.
    """
    abstract = nnx.eval_shape(lambda: create_model(name, **options, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)
    flat = nnx.to_flat_state(state)
    keys = [state_dict_key(path, abstract.options) for path, _ in flat]
    arrays = {key: np.asarray(value) for key, value in state_dict.items()}
    shapes = {
        key: to_torch_layout(key, np.broadcast_to(np.float32(0), variable.shape)).shape
        for key, (_, variable) in zip(keys, flat, strict=True)
    }
    _check(name, arrays, shapes, listed_twice=_lists_encoder_twice(abstract.options))
    leaves = [
        (path, variable.replace(jnp.asarray(from_torch_layout(key, arrays[key], len(variable.shape)), jnp.float32)))
        for key, (path, variable) in zip(keys, flat, strict=True)
    ]
    model = nnx.merge(graphdef, nnx.from_flat_state(leaves))
    model.eval()
    return model


def to_state_dict(model: FUME) -> dict[str, np.ndarray]:
    """The parameters and running statistics of a model as float32 arrays in PyTorch's names and layouts.

    An encoder that two gases share stands twice; `num_batches_tracked`, which only PyTorch keeps, is 0.
    """
    state_dict = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        key = state_dict_key(path, model.options)
        # A copy: PyTorch wants contiguous arrays that can be written to.
        state_dict[key] = np.array(to_torch_layout(key, np.asarray(variable[...])), order="C")
        if key.endswith("running_var"):
            state_dict[key.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    if _lists_encoder_twice(model.options):
        twins = {k.replace("co2_", "ch4_", 1): v.copy() for k, v in state_dict.items() if k.startswith("co2_encoder.")}
        state_dict |= twins
    return state_dict


def _check(name, arrays, shapes, *, listed_twice):
    expected = dict(shapes)
    expected |= {key.replace("running_mean", "num_batches_tracked"): () for key in shapes if "running_mean" in key}
    twins = {}
    if listed_twice:
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
