"""FUME trained up to twice as long as published, with averaged parameters and early stopping.

fume train --config=fume_100_epochs --workdir=runs/fume_100 --config.data.path=DATASET
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """Returns the published recipe with the changes below."""
    config = fume.get_config()
    config.train.epochs = 100
    config.optimizer.warmup_epochs = 5.0
    config.train.ema_decay = 0.999
    config.early_stopping = {"patience": 20, "metric": "joint_score", "mode": "max", "min_delta": 0.0}
    config.checkpoint.keep_every_epochs = 25
    return config
