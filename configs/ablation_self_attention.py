"""Ablation: no attention from one gas to the other.

python -m fume_jax.main --config=configs/ablation_self_attention.py --workdir=runs/ablation_self_attention
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.fusion = "self_attention"
    return config
