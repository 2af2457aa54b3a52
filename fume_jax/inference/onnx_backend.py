"""Runs a trained model in ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fume_jax.data.transforms import ROUNDING
from fume_jax.inference.backends import NO_DIGEST, allocating, nchw, nhwc, reading, sha256
from fume_jax.inference.card import ModelCard
from fume_jax.runtime import telemetry
from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.schema import GASES

# What ONNX Runtime calls the software that runs a file, by the names that users give.
PROVIDERS = {
    "CPU": "CPUExecutionProvider",
    "CUDA": "CUDAExecutionProvider",
    "TensorRT": "TensorrtExecutionProvider",
    "OpenVINO": "OpenVINOExecutionProvider",
}


class OnnxBackend:
    """Runs an ONNX file in ONNX Runtime, on a GPU if that supports one; extra `onnx`.

    One that was written with `end_to_end` takes frames of any size and resizes them itself; `run` does so. As a
    `Backend` it gets frames of its own size, which it leaves as they are, and is asked for logits alone.
    """

    uses_jax = False

    def __init__(self, path: Path, providers: Sequence[str] | None = None):
        """Opens a file; `providers` are names of `PROVIDERS` in the order of preference, by default CUDA and CPU."""
        telemetry.switch_off()
        with needs_extra("onnx", "Running ONNX files"):
            import onnxruntime
        with reading(path):
            data = path.read_bytes()
            chosen = _providers(onnxruntime.get_available_providers(), providers)
            self._session = onnxruntime.InferenceSession(data, providers=chosen)
            self.card = ModelCard.from_json(self._session.get_modelmeta().custom_metadata_map["card"])
            digest = self.card.digest or NO_DIGEST
            self.card.check(path, sha256(data.replace(digest.encode(), NO_DIGEST.encode())))
        self.end_to_end = GASES[0] in (value.name for value in self._session.get_inputs())
        self._logits = [x.name for x in self._session.get_outputs() if x.name.endswith("_logits")]

    @staticmethod
    def write(path: Path, model, card: ModelCard, *, dynamic_size: bool = False, end_to_end: bool = False) -> None:
        """Writes an ONNX file, whose digest is that of all its bytes before the digest is put in; extra `export`."""
        telemetry.switch_off()
        with needs_extra("export", "Writing ONNX files"):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401

            from fume_jax.interop.onnx_model import to_end_to_end_onnx, to_onnx
        options = {"height": card.height, "width": card.width, "metadata": {"card": card.to_json(NO_DIGEST)}}
        if end_to_end:
            data = to_end_to_end_onnx(model, temperature=card.temperature, rounding=ROUNDING, **options)
        else:
            data = to_onnx(model, dynamic_size=dynamic_size, **options)
        path.write_bytes(data.replace(NO_DIGEST.encode(), sha256(data).encode()))

    def __call__(self, **inputs):
        if self.end_to_end:
            frames = {gas: inputs[f"{gas}_frame"][..., 0] for gas in GASES}
            inputs = {gas: np.rint((x + 1) * 127.5).astype(np.uint8) for gas, x in frames.items()} | {
                "modality_mask": inputs["modality_mask"]
            }
        else:
            inputs = {name: nchw(x) for name, x in inputs.items()}
        return {name: nhwc(x) for name, x in self.run(self._logits, **inputs).items()}

    def run(self, outputs: list[str] | None = None, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Returns outputs of the file, all of them or those named, for its inputs, by name and as the file has them."""
        names = outputs or [output.name for output in self._session.get_outputs()]
        with allocating():
            return dict(zip(names, self._session.run(names, inputs), strict=True))


def _providers(available, names):
    """Returns the providers of ONNX Runtime by name; UserError if one that was asked for is not there."""
    if names is None:
        return [PROVIDERS[name] for name in ("CUDA", "CPU") if PROVIDERS[name] in available]
    if missing := [name for name in names if PROVIDERS.get(name) not in available]:
        known = ", ".join(name for name in PROVIDERS if PROVIDERS[name] in available)
        raise UserError(
            f"ONNX Runtime here has no provider {', '.join(missing)}; it has {known}. Others come with other packages, "
            "such as onnxruntime-gpu (CUDA, TensorRT) and onnxruntime-openvino."
        )
    return [PROVIDERS[name] for name in names]
