"""Runs a trained model in JAX, ONNX Runtime, PyTorch or as StableHLO, behind one protocol.

A backend reads the file that it writes.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np

from fume_jax.inference import formats
from fume_jax.inference.card import ModelCard, without_scores
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import check_zip, read_json, readable

# The most bytes of an exported model, packed and unpacked.
MAX_BYTES = 2**30
# Stands for the digest of a file while it is computed.
NO_DIGEST = "0" * 64
# The class that reads and writes the files of each format, and its module, which imports the software that runs them.
BACKENDS = {
    "onnx": ("onnx_backend", "OnnxBackend"),
    "torch": ("torch_backend", "TorchBackend"),
    "stablehlo": ("jax_backends", "StablehloBackend"),
    "weights": ("jax_backends", "WeightsBackend"),
    "openvino": ("openvino_backend", "OpenvinoBackend"),
}


class Backend(Protocol):
    """Maps frames to logits with a trained model, from any number of threads."""

    card: ModelCard
    # Whether the process has threads of JAX from then on, which a fork of it lacks.
    uses_jax: bool

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Returns those of `cls_logits` [B, 3] and `{gas}_seg_logits` [B, H, W, 3] that the model has, float32.

        `inputs` are `co2_frame` and `ch4_frame`, float32 [B, H, W, 1] in [-1, 1] of the card's size, and
        `modality_mask`, float32 [B, 2], 1.0 for each gas that is present. All arrays are on the host.
        """


def backend_class(format: str) -> type[Backend]:
    """Imports and returns the class that reads and writes the files of a format of `formats.FORMATS`.

    Raises UserError where JAX, which all but ONNX files need, is not installed.
    """
    module, name = BACKENDS[format]
    try:
        return getattr(importlib.import_module(f"fume_jax.inference.{module}"), name)
    except ImportError as error:
        raise UserError(
            f"{'A run folder' if format == 'weights' else f'A file for {format}'} needs {error.name}, which is not "
            "installed. Export the model to ONNX where all of fume_jax is installed, fume export --format=onnx, and "
            "name that file."
        ) from error


def open_backend(
    path: str | Path | None = None, name: str | None = None, providers: Sequence[str] | None = None
) -> Backend:
    """Opens a trained model.

    Args:
      path: run folder, exported file, or None for the pretrained model.
      name: one of `formats.BACKENDS`, such as `jax` or `onnx`; None chooses by the file's suffix, JAX for a folder.
        With a run folder, the others run the file that `fume export` writes there.
      providers: of ONNX Runtime, see `OnnxBackend`; for ONNX files alone.

    Raises UserError if there is no such file, it is damaged or of another format, or its software is not installed.
    """
    if name not in (None, *formats.BACKENDS):
        raise UserError(f"There is no backend {name!r}; choose one of: {', '.join(formats.BACKENDS)}.")
    if path is None and name not in (None, "jax"):
        command = f"fume export --format={name} --output=model{formats.FORMATS[name].suffix}"
        raise UserError(f"Export the pretrained model first: {command}. Then name that file.")
    path = Path(path or formats.PRETRAINED)
    if path.is_dir():
        if name in (None, "jax"):
            if providers is not None:
                raise UserError(f"--providers is for ONNX files, and {path} is a run folder.")
            return backend_class("weights")(path)
        path = formats.exported_file(path, name)
        if not path.is_file():
            raise UserError(f"There is no {path}. Write it: fume export --workdir={path.parent} --format={name}.")
    if not path.is_file():
        raise UserError(f"There is no file or run folder {path}.")
    kind = formats.FORMAT_OF_SUFFIX.get(path.suffix)
    if kind is None:
        known = ", ".join(formats.FORMAT_OF_SUFFIX)
        raise UserError(f"{path} is no model: expected a run folder, or a file that ends in {known}.")
    if name not in (None, kind):
        raise UserError(f"Backend {name} does not read {path}, which is a file for {kind}.")
    if providers is not None and kind != "onnx":
        raise UserError(f"--providers is for ONNX files, and {path} is a file for {kind}.")
    return backend_class(kind)(path) if providers is None else backend_class(kind)(path, providers)


def faster_export(workdir: Path) -> tuple[Path | None, str]:
    """Finds the ONNX file in a run folder, with which ONNX Runtime is faster than JAX on a CPU.

    Returns its path, or None, and what to tell the user: nothing where there is no choice, since the folder has no such
    file, ONNX Runtime is not installed, or JAX may have an accelerator.
    """
    path = formats.exported_file(workdir, "onnx")
    if not path.is_file() or importlib.metadata.entry_points(group="jax_plugins") or not find_spec("onnxruntime"):
        return None, ""
    if reason := _not_of_run(path, workdir):
        return None, f"JAX predicts, since {path} {reason}"
    return path, f"{path} predicts, on a CPU faster than JAX as a rule; --backend=jax takes the run itself"


def _not_of_run(path, workdir):
    """Returns why an ONNX file may not be a run as it is: written after all training, with its scores, not in 8 bits.

    Returns an empty string if it is.
    """
    try:
        exported = open_backend(path).card.metrics
    except UserError:
        return "cannot be read"
    metrics = read_json(file) if (file := workdir / "metrics.json").exists() else {}
    trained = [*workdir.glob("checkpoints/*"), *workdir.glob("weights.npz")]
    if not trained:
        return "lies in a folder without checkpoints or weights"
    if path.stat().st_mtime < max(file.stat().st_mtime for file in trained):
        return "is older than the last training of the run; export it anew"
    if b"QuantizeLinear" in path.read_bytes():
        return "computes in 8 bits"
    if metrics == without_scores(metrics):
        return "lies in a run without scores; fume evaluate writes them"
    if exported == without_scores(exported):
        return "has no scores: it was exported before the run was scored, or with --gas_bias or --gas_margin"
    # Written as text, in which NaN is equal to NaN.
    if any(name not in metrics or json.dumps(value) != json.dumps(metrics[name]) for name, value in exported.items()):
        return "has other scores than the run; export it anew"
    return ""


def nchw(x):
    # Frames have one channel: the numbers keep their order.
    return np.ascontiguousarray(x).reshape(-1, 1, *x.shape[1:3]) if x.ndim == 4 else x


def nhwc(x):
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the digest of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raises UserError for any error of a library that reads an export, and if the file is too large for a model."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path} has {size / 1e9:.1f} GB; expected a model of at most {MAX_BYTES / 1e9:.1f} GB.")
    with readable(path, "an export of fume_jax"), allocating():
        if zipfile.is_zipfile(path):  # as those of PyTorch and StableHLO are
            check_zip(path, MAX_BYTES)
        yield


@contextlib.contextmanager
def allocating() -> Iterator[None]:
    """Raises MemoryError for errors about memory, which PyTorch and ONNX Runtime tell by their words alone."""
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in ("can't allocate memory", "Failed to allocate memory")):
            raise MemoryError(str(error).strip().splitlines()[-1]) from error
        raise
