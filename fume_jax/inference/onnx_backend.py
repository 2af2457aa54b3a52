"""Runs a trained model in ONNX Runtime."""

from pathlib import Path

from fume_jax.inference.backends import allocating, nchw, nhwc, reading, sha256
from fume_jax.inference.card import ModelCard
from fume_jax.runtime import telemetry
from fume_jax.runtime.errors import needs_extra

# Stands for the digest of an ONNX file while it is computed.
NO_DIGEST = "0" * 64


class OnnxBackend:
    """Runs an ONNX file in ONNX Runtime, on a GPU if that supports one; extra `onnx`."""

    uses_jax = False

    def __init__(self, path: Path):
        telemetry.switch_off()
        with needs_extra("onnx", "Running ONNX files"):
            import onnxruntime
        with reading(path):
            data = path.read_bytes()
            available = onnxruntime.get_available_providers()
            providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
            self._session = onnxruntime.InferenceSession(data, providers=providers)
            self.card = ModelCard.from_json(self._session.get_modelmeta().custom_metadata_map["card"])
            digest = self.card.digest or NO_DIGEST
            self.card.check(path, sha256(data.replace(digest.encode(), NO_DIGEST.encode())))

    @staticmethod
    def write(path: Path, model, card: ModelCard, *, dynamic_size: bool = False) -> None:
        """Writes an ONNX file, whose digest is that of all its bytes before the digest is put in; extra `export`."""
        telemetry.switch_off()
        with needs_extra("export", "Writing ONNX files"):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401

            from fume_jax.interop.onnx_model import to_onnx
        size = {"height": card.height, "width": card.width, "dynamic_size": dynamic_size}
        data = to_onnx(model, **size, metadata={"card": card.to_json(NO_DIGEST)})
        path.write_bytes(data.replace(NO_DIGEST.encode(), sha256(data).encode()))

    def __call__(self, **inputs):
        with allocating():
            outputs = self._session.run(None, {name: nchw(x) for name, x in inputs.items()})
        return {output.name: nhwc(x) for output, x in zip(self._session.get_outputs(), outputs, strict=True)}
