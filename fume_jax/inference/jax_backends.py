"""Runs a trained model in JAX: from a run folder, from half-precision weights, or as StableHLO."""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np
from flax import nnx

from fume_jax import __version__
from fume_jax.config import abstract_model, get_architecture
from fume_jax.inference.backends import arrays_digest, reading, sha256
from fume_jax.inference.card import ModelCard, read_calibration, without_scores
from fume_jax.interop import to_state_dict
from fume_jax.interop.stablehlo import to_stablehlo
from fume_jax.learning.step import split_model
from fume_jax.models import FUME
from fume_jax.models.heads import SegmentationHead
from fume_jax.runtime.files import read_json, replace_text
from fume_jax.runtime.mesh import batch_sharding, create_mesh, shard_batch
from fume_jax.training import weights
from fume_jax.training.checkpoint import load_config
from fume_jax.training.setup import load_best_model


def create_card(config: ml_collections.ConfigDict, step: int, metrics: Mapping) -> ModelCard:
    """Creates the card of a model trained with `config` for `step` steps."""
    options = get_architecture(config)
    values = json.loads(config.to_json())
    return ModelCard(
        model=config.model.name,
        step=step,
        height=config.data.height,
        width=config.data.width,
        gases=options.gases,
        segmented=options.segmented,
        classifies=options.classifies,
        config=values,
        config_hash=hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest(),
        metrics=dict(metrics),
        version=__version__,
        training_frames=metrics.get("training_frames"),
        **read_calibration(metrics, "val"),
    )


class JaxBackend:
    """Runs the model of a run folder on all devices."""

    uses_jax = True

    def __init__(
        self, path: str | Path, dtype: str | None = None, gas_bias: float = 0.0, gas_margin: float | None = None
    ):
        """Opens the best checkpoint, or weights, of a run folder; `dtype` overrides that of its config.

        `gas_bias` is added to the logit of gas; `gas_margin` replaces that of the config. The scores of the run are
        then not those of the model, and the card has none.
        """
        config = load_config(path)
        changed = bool(gas_bias) or gas_margin not in (None, config.model.gas_margin)
        if gas_margin is not None:
            config.model.gas_margin = gas_margin
        self._mesh = create_mesh()
        restored, step = load_best_model(config, str(path), self._mesh)
        # The metrics of the last evaluation, if that was of this step.
        metrics = read_json(metrics_file) if (metrics_file := Path(path) / "metrics.json").exists() else {}
        metrics = metrics if metrics.get("step") == step else {}
        card = create_card(config, step, without_scores(metrics) if changed else metrics)
        config.model.dtype = dtype or config.model.dtype
        self.model: FUME = abstract_model(config)
        nnx.update(self.model, restored["params"], restored["batch_stats"])
        self.model.eval()
        for _, module in nnx.iter_modules(self.model) if gas_bias else ():
            if isinstance(module, SegmentationHead):
                module.favor_gas(gas_bias)
        # That of a PyTorch file of the same model.
        self.card = dataclasses.replace(card, digest=arrays_digest(to_state_dict(self.model)))
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


class StablehloBackend:
    """Runs a zip file of `model.bin`, serialised by `jax.export`, and `card.json`."""

    uses_jax = True

    def __init__(self, path: Path):
        with reading(path):
            with zipfile.ZipFile(path) as file:
                self.card = ModelCard.from_json(file.read("card.json").decode())
                data = file.read("model.bin")
            self.card.check(path, sha256(data))
            exported = jax.export.deserialize(bytearray(data))
        self._predict_fn = jax.jit(exported.call)

    @staticmethod
    def write(path: Path, model: FUME, card: ModelCard) -> None:
        data = to_stablehlo(model, height=card.height, width=card.width)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("model.bin", data)
            file.writestr("card.json", card.to_json(sha256(data)))
        path.write_bytes(buffer.getbuffer())

    def __call__(self, **inputs):
        return jax.device_get(self._predict_fn(**inputs))
