"""Baseline: classifies CO2 frames, 1.14M parameters; `--config.model.gas=ch4` or `both` reads others.

python -m fume_jax.main --config=configs/classification_only.py --workdir=runs/classification_only
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.name = "classification_only"
    return config
