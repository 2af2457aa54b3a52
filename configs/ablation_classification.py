"""Ablation: FUME without the segmentation task.

python -m fume_jax.main --config=configs/ablation_classification.py --workdir=runs/ablation_classification
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.tasks = "classification"
    return config
