"""Ablation: FUME that reads CO2 alone.

python -m fume_jax.main --config=configs/ablation_co2.py --workdir=runs/ablation_co2
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.gas = "co2"
    return config
