"""Turns an ONNX file into one that computes in integers of 8 bits, or such an OpenVINO file, with frames of training.

Limits of what a number may become come from what the model computes of these frames (Jacob et al. 2018,
arXiv:1712.05877). `check_quality` refuses a file that does worse.
"""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fume_jax.inference.backends import NO_DIGEST, Backend, nchw, sha256
from fume_jax.inference.card import ModelCard
from fume_jax.inference.openvino_backend import OpenvinoBackend
from fume_jax.inference.predictor import stack
from fume_jax.inference.quality import Example, measure_quality
from fume_jax.runtime import telemetry
from fume_jax.runtime.errors import UserError, needs_extra

# Pairs of the training split to calibrate on, and of the validation split to compare on.
CALIBRATED, COMPARED = 128, 200
# By how much the gas IoU may fall, and the least share of pairs whose class stays.
MAX_DROP, MIN_AGREEMENT = 0.005, 0.98
# Parts of a model, by the names of their parameters, whose errors the classes feel most.
EXACT_PARTS = ("fusion.", "attention.", "learning_to_downsample.")


def quantize_onnx(path: Path, onnx_file: Path, card: ModelCard, examples: Sequence[Example]) -> None:
    """Writes an ONNX file in 8 bits by ONNX Runtime; extra `export`.

    Most convolutions compute in 8 bits, see `_exact_nodes`. Their weights have 7, in OpenVINO too, since CPUs without
    VNNI add products of 8 bits in 16 and would saturate.
    """
    telemetry.switch_off()
    with needs_extra("export", "Writing ONNX files in 8 bits"):
        import onnx
        from onnxruntime import quantization
    part = path.with_name("prepared.onnx")
    logging.disable(logging.WARNING)
    try:
        quantization.quant_pre_process(onnx_file, part, skip_symbolic_shape=True)
        quantization.quantize_static(
            part,
            path,
            _reader(quantization, examples),
            per_channel=True,
            reduce_range=True,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=_exact_nodes(onnx.load(part).graph),
        )
    finally:
        logging.disable(logging.NOTSET)
        part.unlink(missing_ok=True)
    model = onnx.load(path)
    del model.metadata_props[:]
    model.metadata_props.add(key="card", value=card.to_json(NO_DIGEST))
    data = model.SerializeToString()
    path.write_bytes(data.replace(NO_DIGEST.encode(), sha256(data).encode()))


def _exact_nodes(graph):
    """Returns the names of convolutions that stay in float32: depthwise ones, which gain little, and sensitive ones."""
    return [
        node.name
        for node in graph.node
        if node.op_type == "Conv"
        and (
            any(attribute.name == "group" and attribute.i > 1 for attribute in node.attribute)
            or any(part in name for part in EXACT_PARTS for name in node.input)
        )
    ]


def _reader(quantization, examples):
    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self._inputs = (_feed(inputs) for inputs, _ in examples)

        def get_next(self):
            return next(self._inputs, None)

    return Reader()


def quantize_openvino(path: Path, onnx_file: Path, card: ModelCard, examples: Sequence[Example]) -> None:
    """Writes an OpenVINO file in 8 bits by nncf, but for `_exact_nodes`; extras `export` and `openvino`."""
    telemetry.switch_off()
    with needs_extra("openvino", "Writing OpenVINO files in 8 bits"):
        import nncf
        import onnx
        import openvino
    nncf.set_log_level(logging.ERROR)
    exact = _exact_nodes(onnx.load(onnx_file).graph)
    program = nncf.quantize(
        openvino.Core().read_model(onnx_file),
        nncf.Dataset([inputs for inputs, _ in examples], _feed),
        subset_size=len(examples),
        # OpenVINO takes a convolution with a bias apart.
        ignored_scope=nncf.IgnoredScope(patterns=[f"^{re.escape(name)}(/WithoutBiases)?$" for name in exact]),
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )
    OpenvinoBackend.save(path, program, card)


def _feed(inputs):
    return {name: nchw(x) for name, x in stack([inputs]).items()}


def check_quality(model: Backend, quantized: Backend, examples: Sequence[Example]) -> str:
    """Returns in words how a file in 8 bits compares with its model; UserError if it does worse than the limits."""
    before, after = (measure_quality(backend, examples) for backend in (model, quantized))
    agreement = float(np.mean(before.classes == after.classes)) if len(before.classes) else 1.0
    words = f"gas IoU {before.gas_iou:.4f} and in 8 bits {after.gas_iou:.4f}, {agreement:.1%} of the classes the same"
    if before.gas_iou - after.gas_iou > MAX_DROP or agreement < MIN_AGREEMENT:
        raise UserError(
            f"The file in 8 bits does worse than the model on {len(examples)} pairs of the validation split: {words}; "
            f"expected a gas IoU at most {MAX_DROP} lower and {MIN_AGREEMENT:.0%}. Nothing was written. Export it "
            "without --int8."
        )
    return words
