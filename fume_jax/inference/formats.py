"""Lists the formats that a trained model is exported to.

Flags, messages and file suffixes read this table alone, and `backends.py` has a class for each format.
"""

from pathlib import Path
from typing import NamedTuple


class Format(NamedTuple):
    suffix: str  # of the file; empty for a folder
    description: str


FORMATS = {
    "onnx": Format(".onnx", "for ONNX Runtime and other readers of ONNX"),
    "torch": Format(".pth", "a checkpoint file that the PyTorch implementation loads"),
    "stablehlo": Format(".stablehlo", "for JAX on CPUs, GPUs and TPUs without this package, by jax.export"),
    "openvino": Format(".xml", "for OpenVINO, with the parameters in a .bin file beside it"),
    "weights": Format("", "a folder with config, metrics and half-precision weights, usable as a run folder"),
}
# Folder of the pretrained model: config, metrics and weights, and frames to try it on.
PRETRAINED = Path(__file__).parents[1] / "assets"
# JAX runs the model of a folder; the backend of its format, that of a file.
FORMAT_OF_SUFFIX = {format.suffix: name for name, format in FORMATS.items() if format.suffix}
BACKENDS = ("jax", *FORMAT_OF_SUFFIX.values())


def exported_file(workdir: str | Path, format: str) -> Path:
    """Returns the path of the export to a format in a run folder."""
    return Path(workdir) / f"model{FORMATS[format].suffix}"
