"""FUME without attention, 1.28M parameters: the model of the paper's tables (arXiv:2601.08205).

python -m fume_jax.main --config=configs/fume_concat.py --workdir=runs/fume_concat
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.name = "fume_concat"
    return config
