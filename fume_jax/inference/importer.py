"""Converts PyTorch checkpoint files to run folders."""

import contextlib
import zipfile
from pathlib import Path

import ml_collections
import numpy as np

from fume_jax.config import create_optimizer, model_options, validate_config
from fume_jax.inference.backends import MAX_BYTES
from fume_jax.interop import from_state_dict
from fume_jax.learning.step import create_train_state
from fume_jax.runtime.errors import UserError, needs_extra
from fume_jax.runtime.files import check_zip
from fume_jax.training.checkpoint import has_checkpoints, save_config
from fume_jax.training.loop_state import LoopState
from fume_jax.training.setup import open_checkpoints

# The most lines about parameters that do not fit.
SHOWN = 12


def run_from_torch(config: ml_collections.ConfigDict, path: str, workdir: str) -> None:
    """Creates a run folder whose only checkpoint, of step 0, has the parameters of a PyTorch file.

    Raises UserError if the file is no checkpoint of tensors and plain values or does not fit the model, or if `workdir`
    holds a run.
    """
    validate_config(config)
    if has_checkpoints(workdir):
        raise UserError(f"{workdir} holds a run already; choose another --workdir.")
    try:
        model = from_state_dict(config.model.name, _read(path), **model_options(config))
    except ValueError as error:
        first_lines = "\n".join(str(error).splitlines()[:SHOWN])
        raise UserError(f"{path}: {first_lines}") from error
    # The optimiser state is fresh; the schedule, and so `steps_per_epoch`, is no part of it.
    _, tx = create_optimizer(config, steps_per_epoch=1)
    save_config(config, workdir)
    state = create_train_state(model, tx, ema=config.train.ema_decay > 0)
    with contextlib.closing(open_checkpoints(config, workdir)) as checkpoints:
        checkpoints.save(state, LoopState.create(config).to_json() | {"devices": 1})


def _read(path):
    """Reads the arrays of a state dict, or of `model_state_dict` in a checkpoint; runs no code of the file."""
    with needs_extra("torch", "A PyTorch file"):
        import torch
    if not Path(path).is_file():
        raise UserError(f"There is no file {path}.")
    try:
        if zipfile.is_zipfile(path):  # as all but the oldest are
            check_zip(path, MAX_BYTES)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # the type depends on the file, which may be hostile
        remedy = "If you trust the file, load it in PyTorch and save its model.state_dict() again."
        reason = "is not a PyTorch checkpoint of tensors and plain values; code in such a file is never run"
        raise UserError(f"{path} {reason}. {remedy}") from error
    state_dict = loaded.get("model_state_dict", loaded) if isinstance(loaded, dict) else {}
    entries = state_dict.items() if isinstance(state_dict, dict) else ()
    if not entries or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in entries):
        raise UserError(f"{path} holds no state dict: expected a dict of tensors, or one under 'model_state_dict'.")
    for key, value in entries:
        if value.layout != torch.strided or value.is_complex() or value.is_quantized or value.is_meta:
            raise UserError(f"{path}: expected dense tensors of real numbers, got another kind in {key}.")
    # A tensor may repeat the few numbers of its storage.
    if 4 * sum(value.numel() for _, value in entries) > MAX_BYTES:
        raise UserError(f"{path} holds more numbers than a model; expected at most {MAX_BYTES / 4e9:.2f} billion.")
    # Files of parallel training prefix every key.
    arrays = {key.removeprefix("module."): value.detach().float().numpy() for key, value in entries}
    if len(arrays) < len(entries):
        raise UserError(f"{path} holds keys with and without 'module.'; expected one or the other.")
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {key} holds values that are not finite; the model was damaged, or not trained.")
    return arrays
