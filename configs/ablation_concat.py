"""Ablation: fusion by a 1x1 convolution of both streams, under the classification head of FUME.

python -m fume_jax.main --config=configs/ablation_concat.py --workdir=runs/ablation_concat
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.fusion = "concat"
    return config
