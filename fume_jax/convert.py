"""Makes a run folder of a checkpoint file of the PyTorch implementation.

    python -m fume_jax.convert --from-torch=best_model.pth --model=fume --workdir=runs/converted

The run evaluates, predicts and trains on. Back: `python -m fume_jax.export --format=torch`.
"""

import runpy

from absl import flags
from ml_collections import config_flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_FROM_TORCH = flags.DEFINE_string("from_torch", None, "PyTorch checkpoint to read.", required=True)
_MODEL = flags.DEFINE_string("model", None, "Which model it holds; see python -m fume_jax.summary.", required=True)
_GAS = flags.DEFINE_string("gas", None, "Which gas the model reads, if not as its config says.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config of the run; fume with the preset of the model if unset.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)


def main() -> None:
    """Converts as the flags say."""
    from fume_jax.inference.importer import run_from_torch

    config = _CONFIG.value or _config_of(_MODEL.value)
    with config.unlocked():
        config.model.name = _MODEL.value
        config.model.gas = _GAS.value or config.model.gas
    run_from_torch(config, _FROM_TORCH.value, _WORKDIR.value)
    print(f"Converted {_FROM_TORCH.value} to the run folder {_WORKDIR.value}.")


def _config_of(model):
    try:
        return runpy.run_path(cli.find_config("fume"))["get_config"](model).lock()
    except ValueError as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    cli.run(main)
