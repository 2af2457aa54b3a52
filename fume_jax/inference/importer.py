"""Run folders from PyTorch checkpoint files."""

import contextlib
from pathlib import Path

import ml_collections
import numpy as np

from fume_jax.config import create_optimizer, model_options, validate_config
from fume_jax.interop import from_state_dict
from fume_jax.learning.step import create_train_state
from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.training.checkpoint import has_checkpoints, save_config
from fume_jax.training.loop_state import LoopState
from fume_jax.training.setup import open_checkpoints

# Lines of what does not fit.
SHOWN = 12


def run_from_torch(config: ml_collections.ConfigDict, path: str, workdir: str) -> None:
    """Makes a run folder whose only checkpoint, of step 0, has the parameters of a PyTorch file.

    Raises:
      UserError: if the file is no checkpoint, holds anything but tensors and plain values, or does not fit the model,
        or if `workdir` holds a run.
    """
    validate_config(config)
    if has_checkpoints(workdir):
        raise UserError(f"{workdir} holds a run already; choose another --workdir.")
    try:
        model = from_state_dict(config.model.name, _read(path), **model_options(config))
    except ValueError as error:
        first = str(error).splitlines()[:SHOWN]
        raise UserError(f"{path}: " + "\n".join(first)) from error
    # Training that goes on from here starts its optimiser afresh; the schedule is no part of what is saved.
    _, tx = create_optimizer(config, steps_per_epoch=1)
    save_config(config, workdir)
    state = create_train_state(model, tx, ema=config.train.ema_decay > 0)
    with contextlib.closing(open_checkpoints(config, workdir)) as checkpoints:
        checkpoints.save(state, LoopState.create(config).to_json() | {"devices": 1})


def _read(path):
    """Arrays of a state dict, or of the `model_state_dict` in a checkpoint. Nothing in the file is executed."""
    with needs_extra("torch", "A PyTorch file"):
        import torch
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that is none, or is hostile, makes torch raise
        raise UserError(
            f"{path} is not a PyTorch checkpoint of tensors and plain values; code in such a file is never run. If you "
            "trust it, load it in PyTorch and save its model.state_dict() anew."
        ) from error
    state_dict = loaded.get("model_state_dict", loaded) if isinstance(loaded, dict) else {}
    entries = state_dict.items() if isinstance(state_dict, dict) else ()
    if not entries or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in entries):
        raise UserError(f"{path} holds no state dict: expected a dict of tensors, or one under 'model_state_dict'.")
    # Files of parallel training prefix every key.
    return {key.removeprefix("module."): np.asarray(value.float()) for key, value in entries}
