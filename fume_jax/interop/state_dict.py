"""Conversion of parameters between the names and layouts of a PyTorch state dict and those of a Flax model.

`BACKBONE_RENAMES` and `RENAMES` turn the path of a parameter into its key, part by part. Its layout follows from its
rank: PyTorch keeps output channels first (`OIHW`), Flax last (`HWIO`), and a 1x1 convolution is a matrix in Flax.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fume_jax.models import FUME, Architecture, create_model
from fume_jax.models.mobilenet import MobileNetV3Small

# Applied in order to the dotted path of a parameter: those of the backbone first.
FAST_SCNN_RENAMES = (
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
)
RESNET_RENAMES = (
    (r"(encoder\.|backbone\.)conv\.", r"\1conv1."),
    (r"(encoder\.|backbone\.)norm\.", r"\1bn1."),
    (r"stages\.(\d)\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"\.shortcut\.conv\.", ".downsample.0."),
    (r"\.shortcut\.norm\.", ".downsample.1."),
    (r"\.norm(\d)\.", r".bn\1."),
)
DEEPLAB_RENAMES = (
    *RESNET_RENAMES,
    (r"pyramid\.branches\.4\.", "aspp.convs.4.pool_"),
    (r"pyramid\.branches\.(\d)\.", r"aspp.convs.\1."),
    (r"pyramid\.merge\.", "aspp.project."),
    (r"(convs\.\d|project|encoder\.low)\.conv\.", r"\1.0."),
    (r"(convs\.\d|project|encoder\.low)\.norm\.", r"\1.1."),
    # The last branch begins with the average, which has no parameters.
    (r"pool_conv\.", "1."),
    (r"pool_norm\.", "2."),
)
MOBILENET_RENAMES = (
    (r"encoder\.conv\.", "encoder.features.0.0."),
    (r"encoder\.norm\.", "encoder.features.0.1."),
    (r"blocks\.(\d+)\.([a-z]+)(_norm)?\.", lambda m: _mobilenet_layer(int(m[1]), m[2], m[3])),
    (r"(block\.\d)\.squeeze\.", r"\1.fc1."),
    (r"(block\.\d)\.excite\.", r"\1.fc2."),
)
BACKBONE_RENAMES = {
    "fast_scnn": FAST_SCNN_RENAMES,
    "mobilenet_v3_small": MOBILENET_RENAMES,
    "resnet18": RESNET_RENAMES,
    "resnet50_deeplabv3plus": DEEPLAB_RENAMES,
}
RENAMES = (
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

# Matrices of linear layers in PyTorch, and one of an embedding; every other matrix is a 1x1 convolution there.
LINEAR_KEYS = re.compile(r"channel_att\.|^cls_head\.|^classifier\.")
EMBEDDING_KEY = "gas_embedding.weight"


def state_dict_key(path: tuple, options: Architecture) -> str:
    """Returns the state-dict key of the parameter at `path` of a model's state."""
    key = ".".join(str(part) for part in path)
    for pattern, replacement in (*BACKBONE_RENAMES.get(options.backbone, ()), *RENAMES, *_renames_of(options)):
        key = re.sub(pattern, replacement, key)
    return key


def _mobilenet_layer(index, name, norm):
    """Returns where a layer is there: in a sequence of those that its block has, of which all but a gate are two."""
    position = MobileNetV3Small.BLOCKS[index].layers.index(name)
    part = "" if name == "gate" else "1." if norm else "0."
    return f"features.{index + 1}.block.{position}.{part}"


def _renames_of(options):
    # Layers are linear, ReLU and dropout in turns, after pooling and flattening unless there is a gas embedding.
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
    if array.ndim == 2 and key != EMBEDDING_KEY:
        return array.T if LINEAR_KEYS.search(key) else array.T[:, :, None, None]
    return array


def from_torch_layout(key: str, array: np.ndarray, ndim: int) -> np.ndarray:
    """Moves the axes of a PyTorch parameter to Flax's order; `ndim` is the rank it has there."""
    if ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if ndim == 2 and key != EMBEDDING_KEY:
        return array.reshape(array.shape[:2]).T
    return array


def from_state_dict(name: str, state_dict: Mapping[str, np.ndarray], **options: str | bool | None) -> FUME:
    """Creates a model, float32 and in evaluation mode, with the parameters of a PyTorch state dict.

    `name` and `options` are those of `fume_jax.models.create_model`. `state_dict` maps keys to arrays, or anything that
    `numpy.asarray` takes. An encoder that two gases share is listed twice, as `co2_encoder.*` and `ch4_encoder.*`, with
    equal values.

    Raises ValueError if there is no such model, or, listing all faults, if keys are missing, unexpected or misshapen or
    the two listings of a shared encoder differ.
    """
    abstract = nnx.eval_shape(lambda: create_model(name, **options, rngs=nnx.Rngs(0)))
    graphdef, state = nnx.split(abstract)
    expected = to_state_dict(nnx.merge(graphdef, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), state)))
    arrays = {key: np.asarray(value) for key, value in state_dict.items()}
    faults = [f"missing: {key}" for key in expected if key not in arrays]
    faults += [f"unexpected: {key}" for key in arrays if key not in expected]
    faults += [
        f"misshapen: {key} is {arrays[key].shape}, expected {array.shape}"
        for key, array in expected.items()
        if key in arrays and arrays[key].shape != array.shape
    ]
    if not faults and _lists_encoder_twice(abstract.options):
        twins = [(key, key.replace("ch4_", "co2_", 1)) for key in expected if key.startswith("ch4_encoder.")]
        faults = [f"differs from {key}: {twin}" for twin, key in twins if (arrays[twin] != arrays[key]).any()]
    if faults:
        raise ValueError(f"The state dict does not fit {name!r}, {len(faults)} faults:\n  " + "\n  ".join(faults))
    leaves = []
    for path, variable in nnx.to_flat_state(state):
        key = state_dict_key(path, abstract.options)
        array = from_torch_layout(key, arrays[key], len(variable.shape))
        leaves.append((path, variable.replace(jnp.asarray(array, jnp.float32))))
    model = nnx.merge(graphdef, nnx.from_flat_state(leaves))
    model.eval()
    return model


def to_state_dict(model: FUME) -> dict[str, np.ndarray]:
    """Returns the parameters and running statistics of a model as float32 arrays in PyTorch's names and layouts.

    An encoder that two gases share is listed twice; `num_batches_tracked`, which only PyTorch keeps, is 0.
    """
    state_dict = {}
    for path, variable in nnx.to_flat_state(nnx.state(model)):
        key = state_dict_key(path, model.options)
        # PyTorch needs contiguous arrays that can be written to, hence the copy.
        state_dict[key] = np.array(to_torch_layout(key, np.asarray(variable[...])), order="C")
        if key.endswith("running_var"):
            state_dict[key.replace("running_var", "num_batches_tracked")] = np.zeros((), np.int64)
    if _lists_encoder_twice(model.options):
        twins = {k.replace("co2_", "ch4_", 1): v.copy() for k, v in state_dict.items() if k.startswith("co2_encoder.")}
        state_dict |= twins
    return state_dict
