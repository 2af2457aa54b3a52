"""Baseline: classifies single frames of either gas, told which, 1.15M parameters.

python -m fume_jax.main --config=configs/gas_aware.py --workdir=runs/gas_aware
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.name = "gas_aware"
    config.model.gas = "both"
    return config
