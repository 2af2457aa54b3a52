"""Ablation: fusion by the mean of the two streams.

python -m fume_jax.main --config=configs/ablation_add.py --workdir=runs/ablation_add
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.fusion = "add"
    return config
