"""The pretrained FUME of `fume_jax/assets`, trained on all of `published` at half the resolution.

Its weights are of version 2.0.0 of that dataset. To train it on the version of today:

python -m datasets.synthetic_ogi --data_dir=data --name=published --width=320 --height=240
fume train --config=pretrained --workdir=runs/pretrained
"""

import ml_collections

from configs import fume


def get_config() -> ml_collections.ConfigDict:
    """Returns the published recipe with the changes below."""
    config = fume.get_config()
    config.data.path = "data/synthetic_ogi/published_320x240/3.0.0"
    config.data.height = 240
    config.data.width = 320
    config.data.num_threads = 2
    # Infrared frames are dark: if they were darker still, faint gas would be clipped to black.
    config.augment.brightness_contrast.brightness = 0.1
    # Sampling already balances the classes; weighing them again would make Transitional the default answer.
    config.loss.cls_alpha = (1.0, 1.0, 1.0)
    # Segmentation is learned sooner than classification, which depends on both gases.
    config.loss.cls_weight = 2.0
    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_epochs = 0.5
    config.train.epochs = 10
    config.eval.batch_size = 27
    config.checkpoint.best_metric = "joint_score"
    return config
