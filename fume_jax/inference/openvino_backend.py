"""Runs a trained model in OpenVINO, on a CPU."""

from pathlib import Path

from fume_jax.inference.backends import NO_DIGEST, allocating, nchw, nhwc, reading, sha256
from fume_jax.inference.card import ModelCard
from fume_jax.runtime import files, telemetry
from fume_jax.runtime.errors import needs_extra

# Where the card is in the file.
CARD = ["fume_jax", "card"]


class OpenvinoBackend:
    """Runs an OpenVINO file `NAME.xml` with the parameters `NAME.bin` beside it; extra `openvino`."""

    uses_jax = False

    def __init__(self, path: Path):
        telemetry.switch_off()
        with reading(path):
            with needs_extra("openvino", "Running OpenVINO files"):
                import openvino
            model = openvino.Core().read_model(path)
            self.card = ModelCard.from_json(model.get_rt_info(CARD).astype(str))
            self.card.check(path, _digest(path, self.card.digest))
            # Some CPUs would round to bfloat16.
            options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
            self._compiled = openvino.Core().compile_model(model, "CPU", options)

    @staticmethod
    def write(path: Path, model, card: ModelCard) -> None:
        """Writes a pair of files; extras `export` and `openvino`."""
        from fume_jax.inference.onnx_backend import OnnxBackend

        with files.scratch(path.parent, ".onnx-") as folder:
            OnnxBackend.write(folder / "model.onnx", model, card)
            OpenvinoBackend.write_onnx(path, folder / "model.onnx", card)

    @staticmethod
    def write_onnx(path: Path, onnx_file: Path, card: ModelCard) -> None:
        """Writes what an ONNX file holds as a pair of files."""
        telemetry.switch_off()
        with needs_extra("openvino", "Writing OpenVINO files"):
            import openvino
        OpenvinoBackend.save(path, openvino.Core().read_model(onnx_file), card)

    @staticmethod
    def save(path: Path, program, card: ModelCard) -> None:
        """Writes an `openvino.Model` with a card, whose digest is that of both files before it is put in."""
        import openvino

        program.set_rt_info(card.to_json(NO_DIGEST), CARD)
        openvino.save_model(program, path, compress_to_fp16=False)
        path.write_bytes(path.read_bytes().replace(NO_DIGEST.encode(), _digest(path).encode()))

    def __call__(self, **inputs):
        request = self._compiled.create_infer_request()  # each thread has one of its own
        with allocating():
            outputs = request.infer({name: nchw(x) for name, x in inputs.items()})
        return {output.get_any_name(): nhwc(x) for output, x in outputs.items()}


def _digest(path, digest=NO_DIGEST):
    text = path.read_bytes().replace((digest or NO_DIGEST).encode(), NO_DIGEST.encode())
    return sha256(text + path.with_suffix(".bin").read_bytes())
