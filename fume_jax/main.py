"""Trains a model: `python -m fume_jax.main --config=configs/demo.py --workdir=runs/demo`.

The same command goes on with a run that was stopped. Any key of the config can be set after it, such as
`--config.train.batch_size=8`.
"""

from absl import flags
from ml_collections import config_flags

from fume_jax import cli, processes
from fume_jax.stopping import StopRequest

_CONFIG = config_flags.DEFINE_config_file("config", None, "Python file with get_config().", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> int:
    """Trains as the flags say; returns the exit code."""
    # After the flags are parsed, so that --help and a mistake in a flag answer at once.
    from fume_jax import sharding
    from fume_jax.train import train

    if _CONFIG.value.deterministic:
        sharding.request_determinism()
    with processes.joined(_WORKDIR.value) as agree, StopRequest(agree) as stop:
        return train(_CONFIG.value, _WORKDIR.value, stop)


if __name__ == "__main__":
    cli.run(main)
