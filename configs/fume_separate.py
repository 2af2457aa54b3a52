"""FUME with an encoder for each gas, 2.73M parameters.

python -m fume_jax.main --config=configs/fume_separate.py --workdir=runs/fume_separate
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.name = "fume_separate"
    return config
