"""Stores a trained model as one small file, such as the pretrained one: no optimiser, float16 parameters."""

from pathlib import Path

import jax
import numpy as np

from fume_jax.runtime.files import readable

FILE = "weights.npz"


def save_weights(folder: str | Path, model: dict, step: int) -> None:
    """Writes `params` as float16 and `batch_stats`, which are small, as float32, with the step of their training."""
    dtypes = {"params": np.float16, "batch_stats": np.float32}
    arrays = {name: np.asarray(array, dtypes[name.partition(".")[0]]) for name, array in _named(model)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.savez_compressed(Path(folder) / FILE, step=step, **arrays)


def load_weights(folder: str | Path, abstract_model: dict) -> tuple[dict, int]:
    """Loads `params` and `batch_stats`, with dtypes and shardings of `abstract_model`, and their step.

    Raises UserError if the file is damaged or of another model.
    """
    path = Path(folder) / FILE
    arrays = []
    with readable(path, "of this model and version"), np.load(path) as file:
        for name, leaf in _named(abstract_model):
            array = file[name]
            if array.shape != leaf.shape:
                raise ValueError(f"{name} is {array.shape}, expected {leaf.shape}")
            arrays.append(jax.device_put(array.astype(leaf.dtype), leaf.sharding))
        step = int(file["step"])
    return jax.tree.unflatten(jax.tree.structure(abstract_model), arrays), step


def _named(model):
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf
