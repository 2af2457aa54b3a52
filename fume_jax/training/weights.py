"""A trained model as one small file, such as the one that is shipped: no optimiser, float16 parameters."""

import zipfile
import zlib
from pathlib import Path

import jax
import numpy as np

from fume_jax.runtime.errors import UserError

# The pretrained model: a run folder with weights for checkpoints, and frames to try them on.
PRETRAINED = Path(__file__).parents[1] / "assets"
FILE = "weights.npz"


def save_weights(folder: str | Path, model: dict, step: int) -> None:
    """Writes `params` as float16 and `batch_stats`, of which there are few, as float32.

    Args:
      folder: made if need be.
      model: the two.
      step: that they were trained to.
    """
    arrays = {name: np.asarray(array, _dtype(name)) for name, array in _named(model)}
    Path(folder).mkdir(parents=True, exist_ok=True)
    np.savez_compressed(Path(folder) / FILE, step=step, **arrays)


def load_weights(folder: str | Path, abstract_model: dict) -> tuple[dict, int]:
    """What `save_weights` wrote, in the shapes, dtypes and shardings of a dict of `params` and `batch_stats`.

    Returns:
      The dict, and the step.

    Raises:
      UserError: if the file is damaged or of another model.
    """
    path = Path(folder) / FILE
    arrays = []
    try:
        with np.load(path) as file:
            for name, leaf in _named(abstract_model):
                if file[name].shape != leaf.shape:
                    raise ValueError(f"{name} is {file[name].shape}, expected {leaf.shape}")
                arrays.append(jax.device_put(file[name].astype(leaf.dtype), leaf.sharding))
            step = int(file["step"])
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} is damaged, or of another model or version: {error}") from error
    return jax.tree.unflatten(jax.tree.structure(abstract_model), arrays), step


def _named(model):
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        yield jax.tree_util.keystr(path, simple=True, separator="."), leaf


def _dtype(name):
    return np.float16 if name.startswith("params.") else np.float32
