"""Ablation: FUME that reads CH4 alone.

python -m fume_jax.main --config=configs/ablation_ch4.py --workdir=runs/ablation_ch4
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.gas = "ch4"
    return config
