"""Inference on one batch of noise with the same model exported to ONNX, by ONNX Runtime or OpenVINO on a CPU."""

import functools

import jax
from flax import nnx

from benchmarks.jax_baseline import RECIPE
from fume_jax.inference.backends import nchw
from fume_jax.interop.onnx_model import to_onnx
from fume_jax.models import create_model
from fume_jax.schema import GASES


class Inference:
    """Computes the logits of one batch at every call."""

    memory_bytes = 0  # not known

    def __init__(self, batch, *, runtime, backbone=None):
        model = jax.jit(lambda: create_model(RECIPE["model"]["name"], backbone=backbone, rngs=nnx.Rngs(0)))()
        model.eval()
        _, height, width, _ = batch["co2_frame"].shape
        file = to_onnx(model, height=height, width=width, dynamic_size=False, metadata={})
        names = [*(f"{gas}_frame" for gas in GASES), "modality_mask"]
        self._predict_fn = functools.partial(RUNTIMES[runtime](file), {name: nchw(batch[name]) for name in names})

    def __call__(self):
        self._predict_fn()
        return self

    def block_until_ready(self) -> None:
        """Does nothing: a call returns when it is done."""


def _onnx_runtime(file):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return functools.partial(session.run, None)


def _openvino(file):
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(core.read_model(file), "CPU", options).create_infer_request().infer


RUNTIMES = {"onnxruntime": _onnx_runtime, "openvino": _openvino}
