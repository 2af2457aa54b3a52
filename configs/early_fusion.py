"""Baseline: both frames as the channels of one input, 1.18M parameters.

python -m fume_jax.main --config=configs/early_fusion.py --workdir=runs/early_fusion
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.name = "early_fusion"
    return config
