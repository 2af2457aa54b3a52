"""Ablation: FUME without the classification task.

python -m fume_jax.main --config=configs/ablation_segmentation.py --workdir=runs/ablation_segmentation
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """The published recipe with another model."""
    config = fume.get_config()
    config.model.tasks = "segmentation"
    config.checkpoint.best_metric = "mean_iou"
    return config
