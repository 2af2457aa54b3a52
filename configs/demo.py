"""FUME on the embedded dataset at a quarter of the resolution, for a laptop. `make demo` runs

python -m datasets.synthetic_ogi --data_dir=data --name=demo
fume train --config=demo --workdir=runs/demo
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """Returns the published recipe with the changes below."""
    config = fume.get_config()
    config.data.height = 120
    config.data.width = 160
    config.data.num_threads = 2
    # So short a training learns mainly from both gases together, and little from one alone.
    config.augment.modality_dropout = 0.1
    # So short a training needs no more variety than its 1,560 pairs and the other operations.
    config.augment.elastic.probability = 0.0
    config.augment.one_of.probability = 0.0
    config.augment.gamma.probability = 0.0
    # Infrared frames are dark: if they were darker still, faint gas would be clipped to black.
    config.augment.brightness_contrast.brightness = 0.1
    # Sampling already balances the classes; weighing them again would make Transitional the default answer.
    config.loss.cls_alpha = (1.0, 1.0, 1.0)
    # Segmentation is learned sooner than classification, which depends on both gases.
    config.loss.cls_weight = 2.0
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_epochs = 1.0
    config.train.batch_size = 8
    config.train.epochs = 12
    config.eval.batch_size = 40
    config.eval.every_epochs = 3
    config.log.every_steps = 39
    config.checkpoint.best_metric = "joint_score"
    return config
