"""The formats that a trained model is exported to.

This table alone names them: flags, messages and file suffixes read it, and `backends.py` has a class for each.
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
    "weights": Format("", "a folder with config, metrics and half-precision weights, which serves as a run folder"),
}
# What runs a model: JAX for a folder, else the backend of the file's format.
FORMAT_OF_SUFFIX = {format.suffix: name for name, format in FORMATS.items() if format.suffix}
BACKENDS = ("jax", *FORMAT_OF_SUFFIX.values())


def exported_file(workdir: str | Path, format: str) -> Path:
    """Returns where a run folder keeps its export to a format."""
    return Path(workdir) / f"model{FORMATS[format].suffix}"
