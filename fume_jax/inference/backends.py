"""Where a trained model runs: in JAX, ONNX Runtime, PyTorch or as StableHLO, behind one protocol.

A backend reads the file that it writes.
"""

import contextlib
import json
import zipfile
from collections.abc import Iterator
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
from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.runtime.mesh import batch_sharding, create_mesh, shard_batch
from fume_jax.training import weights
from fume_jax.training.checkpoint import load_config, load_json
from fume_jax.training.setup import load_best_model


class Backend(Protocol):
    """A trained model that maps frames to logits. Any number of threads may call it."""

    card: ModelCard

    def __call__(
        self, co2_frame: np.ndarray, ch4_frame: np.ndarray, modality_mask: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Logits of a batch, on the host.

        Args:
          co2_frame, ch4_frame: float32 [B, H, W, 1] in [-1, 1], of the size that the card says.
          modality_mask: float32 [B, 2], 1.0 where the gas is present.

        Returns:
          What the model has of `cls_logits` [B, 3] and `co2_seg_logits`, `ch4_seg_logits` [B, H, W, 3], float32.
        """


class JaxBackend:
    """The model of a run folder, on all devices."""

    def __init__(self, path: str | Path, dtype: str | None = None):
        """Opens the best checkpoint of a run, or its weights; `dtype` computes in another than its config says.

        Raises:
          UserError: if there is no such run, or it has no checkpoint.
        """
        config = load_config(path)
        self._mesh = create_mesh()
        restored, step = load_best_model(config, str(path), self._mesh)
        self.card = create_card(config, step, _metrics(path, step))
        config.model.dtype = dtype or config.model.dtype
        self.model: FUME = abstract_model(config)
        nnx.update(self.model, restored["params"], restored["batch_stats"])
        self.model.eval()
        graphdef, self._state = nnx.split(self.model)
        self._predict_fn = jax.jit(
            lambda state, inputs: nnx.merge(graphdef, state)(**inputs),
            out_shardings=batch_sharding(self._mesh),
        )

    def __call__(self, co2_frame, ch4_frame, modality_mask):
        inputs = {"co2_frame": co2_frame, "ch4_frame": ch4_frame, "modality_mask": modality_mask}
        count = len(modality_mask)
        padding = -count % self._mesh.size  # devices share a batch evenly
        inputs = {name: np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)) for name, x in inputs.items()}
        outputs = jax.device_get(self._predict_fn(self._state, shard_batch(inputs, self._mesh)))
        return {name: x[:count] for name, x in outputs.items()}


class WeightsBackend(JaxBackend):
    """A folder with the config, the metrics and half-precision weights of a run, which serves as a run folder."""

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        """Writes such a folder."""
        _, params, batch_stats = split_model(model)
        weights.save_weights(path, {"params": params, "batch_stats": batch_stats}, card.step)
        for name, values in (("config", card.config), ("metrics", card.metrics)):
            (path / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")


class OnnxBackend:
    """An ONNX file in ONNX Runtime, on a GPU if it has one; extra `onnx`."""

    def __init__(self, path: Path):
        with needs_extra("onnx", "Running ONNX files"):
            import onnxruntime
        with _readable(path):
            available = onnxruntime.get_available_providers()
            providers = [p for p in ("CUDAExecutionProvider", "CPUExecutionProvider") if p in available]
            self._session = onnxruntime.InferenceSession(path, providers=providers)
            self.card = ModelCard.from_json(self._session.get_modelmeta().custom_metadata_map["card"])

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard, *, dynamic_size: bool = False) -> None:
        """Writes such a file; extra `export`."""
        with needs_extra("export", "Writing ONNX files"):
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401

            from fume_jax.interop.onnx_model import to_onnx
        size = {"height": card.height, "width": card.width, "dynamic_size": dynamic_size}
        path.write_bytes(to_onnx(model, **size, metadata={"card": card.to_json()}))

    def __call__(self, co2_frame, ch4_frame, modality_mask):
        inputs = {"co2_frame": _nchw(co2_frame), "ch4_frame": _nchw(ch4_frame), "modality_mask": modality_mask}
        outputs = self._session.run(None, inputs)
        return {output.name: _nhwc(x) for output, x in zip(self._session.get_outputs(), outputs, strict=True)}


class StablehloBackend:
    """A zip file of `model.bin`, which is what `jax.export` serialises, and `card.json`."""

    def __init__(self, path: Path):
        with _readable(path), zipfile.ZipFile(path) as file:
            exported = jax.export.deserialize(bytearray(file.read("model.bin")))
            self.card = ModelCard.from_json(file.read("card.json").decode())
        self._predict_fn = jax.jit(exported.call)

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        """Writes such a file."""
        from fume_jax.interop.stablehlo import to_stablehlo

        with zipfile.ZipFile(path, "w") as file:
            file.writestr("model.bin", to_stablehlo(model, height=card.height, width=card.width))
            file.writestr("card.json", card.to_json())

    def __call__(self, co2_frame, ch4_frame, modality_mask):
        inputs = {"co2_frame": co2_frame, "ch4_frame": ch4_frame, "modality_mask": modality_mask}
        return jax.device_get(self._predict_fn(**inputs))


class TorchBackend:
    """A checkpoint file of the PyTorch implementation that also has a card, in eager PyTorch; extra `torch`."""

    def __init__(self, path: Path):
        with needs_extra("torch", "A PyTorch file"):
            import torch

            from fume_jax.interop.torch_model import TorchFUME
        with _readable(path):
            loaded = torch.load(path, weights_only=True)
            if "card" not in loaded:
                convert = f"fume convert --from-torch={path} --model=NAME --workdir=DIR"
                raise UserError(f"{path} does not say what model it holds. Make a run of it: {convert}")
            self.card = ModelCard.from_json(loaded["card"])
            config = ml_collections.ConfigDict(upgrade_values(self.card.config))
            self.network = TorchFUME(get_architecture(config)).eval()
            self.network.load_state_dict(loaded["model_state_dict"])

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        """Writes such a file, a dict with `model_state_dict`, which the PyTorch implementation reads."""
        with needs_extra("torch", "A PyTorch file"):
            import torch
        from fume_jax.interop import to_state_dict

        tensors = {key: torch.from_numpy(array) for key, array in to_state_dict(model).items()}
        torch.save({"model_state_dict": tensors, "card": card.to_json()}, path)

    def __call__(self, co2_frame, ch4_frame, modality_mask):
        import torch

        inputs = {"co2_frame": _nchw(co2_frame), "ch4_frame": _nchw(ch4_frame), "modality_mask": modality_mask}
        with torch.inference_mode():
            outputs = self.network(**{name: torch.from_numpy(x) for name, x in inputs.items()})
        return {name: _nhwc(x.numpy()) for name, x in outputs.items()}


# The class of each format, which reads and writes its files.
BACKENDS = {"onnx": OnnxBackend, "torch": TorchBackend, "stablehlo": StablehloBackend, "weights": WeightsBackend}


def open_backend(path: str | Path | None = None, name: str | None = None) -> Backend:
    """Opens a trained model.

    Args:
      path: run folder, exported file, or None for the pretrained weights.
      name: `jax`, `onnx`, `stablehlo` or `torch`; if None, what the file's ending says, JAX for a folder. In a run
        folder it means the file that `fume export` leaves there.

    Raises:
      UserError: if there is no such file, it is damaged or of another kind, or what runs it is not installed.
    """
    if name not in (None, *formats.BACKENDS):
        raise UserError(f"There is no backend {name!r}; choose one of: {', '.join(formats.BACKENDS)}.")
    if path is None and name not in (None, "jax"):
        raise UserError(
            f"Export the pretrained model first: fume export --format={name} "
            f"--output=model{formats.FORMATS[name].suffix}. Then name that file."
        )
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


def _metrics(workdir, step) -> dict:
    """What an evaluation said of that step, if it was the last one evaluated."""
    path = Path(workdir) / "metrics.json"
    metrics = load_json(path) if path.exists() else {}
    return metrics if metrics.get("step") == step else {}


def _nchw(frames):
    # Of one channel: the same numbers in the same order.
    return np.ascontiguousarray(frames).reshape(-1, 1, *frames.shape[1:3])


def _nhwc(x):
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, MemoryError, PermissionError):
        raise
    except Exception as error:  # of many types, by library and by what is damaged
        raise UserError(f"{path} is damaged, or no export of fume_jax ({type(error).__name__}).") from error
