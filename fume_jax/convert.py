"""Exchanges models with PyTorch.

    python -m fume_jax.convert --from-torch=best_model.pth --model=fume --workdir=runs/converted
    python -m fume_jax.convert --to-torch=model.pth --workdir=runs/demo

The first makes a run folder, which evaluates, predicts and trains on, from a checkpoint file of the PyTorch
implementation; the second writes the best checkpoint of a run as such a file.
"""

from absl import flags
from ml_collections import config_flags

from fume_jax import cli
from fume_jax.errors import UserError

_FROM_TORCH = flags.DEFINE_string("from_torch", None, "PyTorch checkpoint to read.")
_TO_TORCH = flags.DEFINE_string("to_torch", None, "PyTorch checkpoint to write.")
_MODEL = flags.DEFINE_string("model", None, "With --from_torch: which model it holds; see python -m fume_jax.summary.")
_GAS = flags.DEFINE_string("gas", None, "With --from_torch: which gas a single-stream model reads; CO2 if unset.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/fume.py", "With --from_torch: the other keys of the run.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    if (_FROM_TORCH.value is None) == (_TO_TORCH.value is None):
        raise UserError("Give one of --from-torch=FILE, to make a run of it, and --to-torch=FILE, to write one.")
    from fume_jax.conversion import run_from_torch, run_to_torch

    if _TO_TORCH.value:
        run_to_torch(_WORKDIR.value, _TO_TORCH.value)
        print(f"Wrote the best checkpoint of {_WORKDIR.value} to {_TO_TORCH.value}.")
        return
    if _MODEL.value is None:
        raise UserError("Say which model the checkpoint holds: --model=fume; python -m fume_jax.summary lists them.")
    config = _CONFIG.value
    with config.unlocked():
        config.model.name, config.model.gas = _MODEL.value, _GAS.value
    run_from_torch(config, _FROM_TORCH.value, _WORKDIR.value)
    print(f"Made {_WORKDIR.value}, which evaluates, predicts and trains on, of {_FROM_TORCH.value}.")


if __name__ == "__main__":
    cli.run(main)
