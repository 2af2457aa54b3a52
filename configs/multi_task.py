"""Baseline: segments and classifies CO2 frames, 1.18M parameters; `--config.model.gas=ch4` or `both` reads others.

python -m fume_jax.main --config=configs/multi_task.py --workdir=runs/multi_task
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.name = "multi_task"
    return config
