"""Runs a trained model in JAX, ONNX Runtime, PyTorch or as StableHLO, behind one protocol.

A backend reads the file that it writes.
"""

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import jax
import ml_collections
import numpy as np
from flax import nnx

from fume_jax.config import abstract_model, get_architecture, upgrade_values
from fume_jax.inference import formats
from fume_jax.inference.card import ModelCard, create_card
from fume_jax.learning.step import split_model
from fume_jax.models import FUME
from fume_jax.runtime import telemetry
from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.runtime.files import check_zip, read_json, readable, replace_text
from fume_jax.runtime.mesh import batch_sharding, create_mesh, shard_batch
from fume_jax.training import weights
from fume_jax.training.checkpoint import load_config
from fume_jax.training.setup import load_best_model

# The most bytes of an exported model, unpacked.
MAX_BYTES = 2**30
# Stands for the digest of an ONNX file while it is computed.
NO_DIGEST = "0" * 64


class Backend(Protocol):
    """Maps frames to logits with a trained model, from any number of threads."""

    card: ModelCard

    def __call__(self, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Returns those of `cls_logits` [B, 3] and `{gas}_seg_logits` [B, H, W, 3] that the model has, float32.

        `inputs` are `co2_frame` and `ch4_frame`, float32 [B, H, W, 1] in [-1, 1] of the card's size, and
        `modality_mask`, float32 [B, 2], 1.0 for each gas that is present. All arrays are on the host.
        """


class JaxBackend:
    """Runs the model of a run folder on all devices."""

    def __init__(self, path: str | Path, dtype: str | None = None):
        """Opens the best checkpoint, or weights, of a run folder; `dtype` overrides that of its config."""
        config = load_config(path)
        self._mesh = create_mesh()
        restored, step = load_best_model(config, str(path), self._mesh)
        # The metrics of the last evaluation, if that was of this step.
        metrics = read_json(metrics_file) if (metrics_file := Path(path) / "metrics.json").exists() else {}
        self.card = create_card(config, step, metrics if metrics.get("step") == step else {})
        config.model.dtype = dtype or config.model.dtype
        self.model: FUME = abstract_model(config)
        nnx.update(self.model, restored["params"], restored["batch_stats"])
        self.model.eval()
        graphdef, self._state = nnx.split(self.model)
        self._predict_fn = jax.jit(
            lambda state, inputs: nnx.merge(graphdef, state)(**inputs), out_shardings=batch_sharding(self._mesh)
        )

    def __call__(self, **inputs):
        count = len(inputs["modality_mask"])
        padding = -count % self._mesh.size  # devices share a batch evenly
        inputs = {name: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)) for name, x in inputs.items()}
        outputs = jax.device_get(self._predict_fn(self._state, shard_batch(inputs, self._mesh)))
        return {name: x[:count] for name, x in outputs.items()}


class WeightsBackend(JaxBackend):
    """Runs the model of a folder with config, metrics and half-precision weights, which serves as a run folder."""

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        _, params, batch_stats = split_model(model)
        weights.save_weights(path, {"params": params, "batch_stats": batch_stats}, card.step)
        for name, values in (("config", card.config), ("metrics", card.metrics)):
            replace_text(path / f"{name}.json", json.dumps(values, indent=1) + "\n")


class OnnxBackend:
    """Runs an ONNX file in ONNX Runtime, on a GPU if that supports one; extra `onnx`."""

    def __init__(self, path: Path):
        telemetry.switch_off()
        with needs_extra("onnx", "Running ONNX files"):
            import onnxruntime
        with _reading(path):
            data = path.read_bytes()
            available = onnxruntime.get_available_providers()
            providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
            self._session = onnxruntime.InferenceSession(data, providers=providers)
            self.card = ModelCard.from_json(self._session.get_modelmeta().custom_metadata_map["card"])
            digest = self.card.digest or NO_DIGEST
            self.card.check(path, _sha256(data.replace(digest.encode(), NO_DIGEST.encode())))

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard, *, dynamic_size: bool = False) -> None:
        """Writes an ONNX file, whose digest is that of all its bytes before the digest is put in; extra `export`."""
        telemetry.switch_off()
        with needs_extra("export", "Writing ONNX files"):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401

            from fume_jax.interop.onnx_model import to_onnx
        size = {"height": card.height, "width": card.width, "dynamic_size": dynamic_size}
        data = to_onnx(model, **size, metadata={"card": card.to_json(NO_DIGEST)})
        path.write_bytes(data.replace(NO_DIGEST.encode(), _sha256(data).encode()))

    def __call__(self, **inputs):
        with _allocating():
            outputs = self._session.run(None, {name: _nchw(x) for name, x in inputs.items()})
        return {output.name: _nhwc(x) for output, x in zip(self._session.get_outputs(), outputs, strict=True)}


class StablehloBackend:
    """Runs a zip file of `model.bin`, serialised by `jax.export`, and `card.json`."""

    def __init__(self, path: Path):
        with _reading(path):
            check_zip(path, MAX_BYTES)
            with zipfile.ZipFile(path) as file:
                self.card = ModelCard.from_json(file.read("card.json").decode())
                data = file.read("model.bin")
            self.card.check(path, _sha256(data))
            exported = jax.export.deserialize(bytearray(data))
        self._predict_fn = jax.jit(exported.call)

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        from fume_jax.interop.stablehlo import to_stablehlo

        data = to_stablehlo(model, height=card.height, width=card.width)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("model.bin", data)
            file.writestr("card.json", card.to_json(_sha256(data)))
        path.write_bytes(buffer.getbuffer())

    def __call__(self, **inputs):
        return jax.device_get(self._predict_fn(**inputs))


class TorchBackend:
    """Runs a checkpoint file of the PyTorch implementation with a card, in eager PyTorch; extra `torch`."""

    def __init__(self, path: Path):
        with needs_extra("torch", "A PyTorch file"):
            import torch

            from fume_jax.interop.torch_model import TorchFUME
        with _reading(path):
            if zipfile.is_zipfile(path):  # as all but the oldest are
                check_zip(path, MAX_BYTES)
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            if "card" not in loaded:
                convert = f"fume convert --from-torch={path} --model=NAME --workdir=DIR"
                raise UserError(f"{path} does not name its model. Convert it to a run folder: {convert}")
            self.card = ModelCard.from_json(loaded["card"])
            config = ml_collections.ConfigDict(upgrade_values(self.card.config))
            self.network = TorchFUME(get_architecture(config)).eval()
            self.network.load_state_dict(loaded["model_state_dict"])
            self.card.check(path, _digest({key: tensor.numpy() for key, tensor in self.network.state_dict().items()}))

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        """Writes a dict with `model_state_dict`, which the PyTorch implementation reads."""
        with needs_extra("torch", "A PyTorch file"):
            import torch
        from fume_jax.interop import to_state_dict

        arrays = to_state_dict(model)
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        buffer = io.BytesIO()  # PyTorch, writing to a full disk, prints pages
        torch.save({"model_state_dict": tensors, "card": card.to_json(_digest(arrays))}, buffer)
        path.write_bytes(buffer.getbuffer())

    def __call__(self, **inputs):
        import torch

        with torch.inference_mode(), _allocating():
            outputs = self.network(**{name: torch.from_numpy(_nchw(x)) for name, x in inputs.items()})
        return {name: _nhwc(x.numpy()) for name, x in outputs.items()}


# The class that reads and writes the files of each format.
BACKENDS = {"onnx": OnnxBackend, "torch": TorchBackend, "stablehlo": StablehloBackend, "weights": WeightsBackend}


def open_backend(path: str | Path | None = None, name: str | None = None) -> Backend:
    """Opens a trained model.

    Args:
      path: run folder, exported file, or None for the pretrained model.
      name: `jax`, `onnx`, `stablehlo` or `torch`; None chooses by the file's suffix, JAX for a folder. With a run
        folder, the others run the file that `fume export` writes there.

    Raises UserError if there is no such file, it is damaged or of another format, or its software is not installed.
    """
    if name not in (None, *formats.BACKENDS):
        raise UserError(f"There is no backend {name!r}; choose one of: {', '.join(formats.BACKENDS)}.")
    if path is None and name not in (None, "jax"):
        command = f"fume export --format={name} --output=model{formats.FORMATS[name].suffix}"
        raise UserError(f"Export the pretrained model first: {command}. Then name that file.")
    path = Path(path or weights.PRETRAINED)
    if path.is_dir():
        if name in (None, "jax"):
            return JaxBackend(path)
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
    return BACKENDS[kind](path)


def _nchw(x):
    # Frames have one channel: the numbers keep their order.
    return np.ascontiguousarray(x).reshape(-1, 1, *x.shape[1:3]) if x.ndim == 4 else x


def _nhwc(x):
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def _sha256(data):
    return hashlib.sha256(data).hexdigest()


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the digest of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for key in sorted(arrays):
        digest.update(f"{key} {arrays[key].dtype} {arrays[key].shape} ".encode())
        digest.update(np.ascontiguousarray(arrays[key]).data)
    return digest.hexdigest()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Raises UserError for any error of a library that reads an export, and if the file is too large for a model."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise UserError(f"{path} has {size / 1e9:.1f} GB; expected a model of at most {MAX_BYTES / 1e9:.1f} GB.")
    with readable(path, "an export of fume_jax"), _allocating():
        yield


@contextlib.contextmanager
def _allocating() -> Iterator[None]:
    """Raises MemoryError for errors about memory, which PyTorch and ONNX Runtime tell by their words alone."""
    try:
        yield
    except Exception as error:
        if any(words in str(error) for words in ("can't allocate memory", "Failed to allocate memory")):
            raise MemoryError(str(error).strip().splitlines()[-1]) from error
        raise
