"""FUME for frames of any camera, trained on `pretraining` after `demo`, first at half its width and height.

make demo
python -m datasets.synthetic_ogi --data_dir=data --name=pretraining
fume train --config=pretraining:small --workdir=runs/pretraining_small
fume train --config=pretraining --workdir=runs/pretraining
"""

import ml_collections

from configs import fume


def get_config(stage: str = "full") -> ml_collections.ConfigDict:
    """Returns the published recipe with the changes below, for the stage `small` or `full`."""
    if stage not in ("small", "full"):
        raise ValueError(f"There is no stage {stage!r}; choose one of: small, full.")
    config = fume.get_config()
    config.data.path = "data/synthetic_ogi/pretraining/3.0.0"
    config.data.num_threads = 2
    # The scenes vary enough, and bending them takes as long as all other operations together.
    config.augment.elastic.probability = 0.0
    # Infrared frames are dark: if they were darker still, faint gas would be clipped to black.
    config.augment.brightness_contrast.brightness = 0.1
    # Sampling already balances the classes; weighing them again would make Transitional the default answer.
    config.loss.cls_alpha = (1.0, 1.0, 1.0)
    # Segmentation is learned sooner than classification, which depends on both gases.
    config.loss.cls_weight = 2.0
    # A fifth of the recordings has no gas.
    config.loss.seg_dice_smooth = 100.0
    config.train.ema_decay = 0.999
    config.eval.batch_size = 40
    config.checkpoint.best_metric = "joint_score"
    if stage == "small":
        # Scenes of every kind teach the pH state to nobody who has not learned it in the laboratory.
        config.init_from = "runs/demo"
        config.data.height, config.data.width = 120, 160
        config.loss.seg_dice_smooth = 25.0
        config.optimizer.learning_rate = 2e-3
        config.optimizer.warmup_epochs = 0.2
        config.train.epochs = 3
    else:
        config.init_from = "runs/pretraining_small"
        config.data.height, config.data.width = 240, 320
        config.optimizer.learning_rate = 1e-3
        config.optimizer.warmup_epochs = 0.1
        config.train.epochs = 2
    return config
