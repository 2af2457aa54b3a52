"""Converts a checkpoint file of the PyTorch implementation to a run folder.

    fume convert --from-torch=best_model.pth --model=fume --workdir=runs/converted

The run folder can be evaluated, used for prediction and trained further. `fume export --format=torch` converts back.
"""

import runpy

from absl import flags
from ml_collections import config_flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_FROM_TORCH = flags.DEFINE_string("from_torch", None, "Path of the PyTorch checkpoint file to convert.", required=True)
_MODEL = flags.DEFINE_string("model", None, "Name of the model in the file; see fume summary.", required=True)
_GAS = flags.DEFINE_string("gas", None, "Gas that the model reads: co2, ch4 or both; that of the config if unset.")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config of the run, by name or path; fume with the preset of the model if unset.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run folder to write.", required=True)


def main() -> None:
    """Converts as the flags say."""
    from fume_jax.config import with_local_paths
    from fume_jax.inference.importer import run_from_torch

    try:
        config = _CONFIG.value or runpy.run_path(cli.find_config("fume"))["get_config"](_MODEL.value).lock()
        config = with_local_paths(config)
    except ValueError as error:
        raise UserError(str(error)) from error
    with config.unlocked():
        config.model.name = _MODEL.value
        config.model.gas = _GAS.value or config.model.gas
    run_from_torch(config, _FROM_TORCH.value, _WORKDIR.value)
    print(f"Converted {_FROM_TORCH.value} to the run folder {_WORKDIR.value}.")


if __name__ == "__main__":
    cli.run(main)
