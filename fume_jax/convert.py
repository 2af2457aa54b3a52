"""Exchanges models with PyTorch.

    python -m fume_jax.convert --from-torch=best_model.pth --model=fume --workdir=runs/converted
    python -m fume_jax.convert --to-torch=model.pth --workdir=runs/demo

The first makes a run folder, which evaluates, predicts and trains on, from a checkpoint file of the PyTorch
implementation; the second writes the best checkpoint of a run as such a file.
"""

import runpy
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fume_jax import cli
from fume_jax.errors import UserError

_FROM_TORCH = flags.DEFINE_string("from_torch", None, "PyTorch checkpoint to read.")
_TO_TORCH = flags.DEFINE_string("to_torch", None, "PyTorch checkpoint to write.")
_MODEL = flags.DEFINE_string("model", None, "With --from_torch: which model it holds; see python -m fume_jax.summary.")
_GAS = flags.DEFINE_string("gas", None, "With --from_torch: which gas the model reads, if not as its config says.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "With --from_torch: config of the run; configs/MODEL.py if unset.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    """Converts as the flags say."""
    if (_FROM_TORCH.value is None) == (_TO_TORCH.value is None):
        raise UserError("Give one of --from-torch=FILE, to make a run of it, and --to-torch=FILE, to write one.")
    from fume_jax.conversion import run_from_torch, run_to_torch

    if _TO_TORCH.value:
        run_to_torch(_WORKDIR.value, _TO_TORCH.value)
        print(f"Wrote the best checkpoint of {_WORKDIR.value} to {_TO_TORCH.value}.")
        return
    if _MODEL.value is None:
        raise UserError("Say which model the checkpoint holds: --model=fume; python -m fume_jax.summary lists them.")
    config = _CONFIG.value or _config_of(_MODEL.value)
    with config.unlocked():
        config.model.name = _MODEL.value
        config.model.gas = _GAS.value or config.model.gas
    run_from_torch(config, _FROM_TORCH.value, _WORKDIR.value)
    print(f"Made {_WORKDIR.value}, which evaluates, predicts and trains on, of {_FROM_TORCH.value}.")


def _config_of(model):
    path = Path("configs") / f"{model}.py"
    if not path.is_file():
        raise UserError(f"There is no {path}. Name the config of the run by --config=FILE, in the checkout's folder.")
    return runpy.run_path(str(path))["get_config"]().lock()


if __name__ == "__main__":
    cli.run(main)
