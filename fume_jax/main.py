"""Trains a model: `fume train --config=demo --workdir=runs/demo`, which is `python -m fume_jax.main`.

The same command resumes a run that was stopped. `--config.train.batch_size=8` sets a key of the config.
"""

from absl import flags
from ml_collections import config_flags

from fume_jax.runtime import cli, distributed
from fume_jax.runtime.malloc import keep_freed_memory
from fume_jax.runtime.preemption import StopRequest

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Name of a config, such as demo or fume:early_fusion, or path of a config file.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, which is created or, if it holds a run, resumed.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains as the flags say; returns the exit code."""
    # Imported after the flags are parsed, so that --help and a mistake in a flag answer at once.
    from fume_jax.config import validate_config, with_local_paths
    from fume_jax.runtime.mesh import request_determinism
    from fume_jax.training.loop import train

    config = with_local_paths(_CONFIG.value)
    validate_config(config)
    if config.deterministic:
        request_determinism()
    with distributed.joined(_WORKDIR.value) as agree, StopRequest(agree) as stop:
        return train(config, _WORKDIR.value, stop)


if __name__ == "__main__":
    keep_freed_memory()
    cli.run(main)
