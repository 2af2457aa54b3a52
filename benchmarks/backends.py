"""One pair through every backend: JAX, ONNX Runtime and StableHLO against eager PyTorch.

    python -m benchmarks.backends

Frames on the host in, logits on the host out, taken in turns; prints medians and their ratios to PyTorch.
"""

import functools
import os
import tempfile
from pathlib import Path

import jax
import numpy as np
import torch
from absl import app, flags

from benchmarks.timing import alternate, table
from configs import fume
from fume_jax import build
from fume_jax.backends import FORMATS
from fume_jax.card import create_card

_REPEATS = flags.DEFINE_integer("repeats", 20, "Runs of each.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "Pairs a run.", lower_bound=1)
_MODEL = flags.DEFINE_string("model", "fume", "Which model; see python -m fume_jax.summary.")

BACKENDS = {"torch": "PyTorch, eager", "weights": "JAX", "stablehlo": "StableHLO, in JAX", "onnx": "ONNX Runtime"}


def main(_) -> None:
    jax.config.update("jax_platforms", "cpu")  # PyTorch and ONNX Runtime are those for CPU
    config = fume.get_config()
    config.model.name = _MODEL.value
    card, model = create_card(config, 0, {}), build.model(config)
    model.eval()
    rng = np.random.default_rng(0)
    shape = _BATCH.value, card.height, card.width, 1
    frames = {f"{gas}_frame": rng.uniform(-1, 1, shape).astype(np.float32) for gas in ("co2", "ch4")}
    inputs = frames | {"modality_mask": np.ones((_BATCH.value, 2), np.float32)}
    calls = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, title in BACKENDS.items():
            backend = FORMATS[name]
            path = Path(folder) / f"model{backend.ending}"
            backend.write(path, model, card)
            calls[title] = functools.partial(backend(path), **inputs)
        medians = alternate(calls, repeats=_REPEATS.value)
    eager = medians[BACKENDS["torch"]]
    rows = [[n, f"{1e3 * t:.1f}", f"{_BATCH.value / t:.0f}", f"{t / eager:.2f}x"] for n, t in medians.items()]
    print(
        f"{config.model.name}, {_BATCH.value} pair(s) of {card.width}x{card.height}, {jax.devices()[0].device_kind}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads of PyTorch"
    )
    print(table(["backend", "median ms", "pairs/s", "time to eager"], rows))


if __name__ == "__main__":
    app.run(main)
