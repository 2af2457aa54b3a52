"""Small ONNX files that stand for models, written in an instant."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fume_jax.inference.card import ModelCard
from fume_jax.schema import GASES


def write_onnx(path, card: ModelCard, *, convolved: bool = False):
    """A model of both tasks: gas where a frame is bright, and the class is Healthy wherever CO2 is present.

    With `convolved` each frame goes through a convolution that changes nothing.
    """
    frame = [helper.make_tensor_value_info(f"{gas}_frame", 1, ["n", 1, "h", "w"]) for gas in GASES]
    mask = helper.make_tensor_value_info("modality_mask", 1, ["n", 2])
    nodes = [helper.make_node("Pad", ["modality_mask", "pads"], ["cls_logits"])]
    constants = [helper.make_tensor("pads", onnx.TensorProto.INT64, [4], [0, 0, 0, 1])]
    if convolved:
        kernel = np.zeros((1, 1, 3, 3), np.float32)
        kernel[0, 0, 1, 1] = 1
        constants += [numpy_helper.from_array(kernel, f"{gas}_kernel") for gas in GASES]
    for gas in GASES:
        grey = f"{gas}_frame"
        if convolved:
            nodes.append(
                helper.make_node("Conv", [grey, f"{gas}_kernel"], [f"{gas}_same"], pads=[1] * 4, name=f"conv_{gas}")
            )
            grey = f"{gas}_same"
        nodes.append(helper.make_node("Sub", [grey, grey], [f"{gas}_zero"]))
        nodes.append(helper.make_node("Neg", [grey], [f"{gas}_dark"]))
        nodes.append(helper.make_node("Concat", [f"{gas}_zero", f"{gas}_dark", grey], [f"{gas}_seg_logits"], axis=1))
    outputs = [helper.make_tensor_value_info("cls_logits", 1, ["n", 3])]
    outputs += [helper.make_tensor_value_info(f"{gas}_seg_logits", 1, ["n", 3, "h", "w"]) for gas in GASES]
    graph = helper.make_graph(nodes, "small", [*frame, mask], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    model.metadata_props.add(key="card", value=card.to_json())
    onnx.save(model, path)
    return path
