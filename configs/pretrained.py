"""The pretrained FUME of `fume_jax/assets`, for frames of any camera; docs/models.md has its commands.

It is trained in three stages, each from the model of the one before: `small` and `medium` take at most half an hour
each on two CPU cores, `large` six minutes on an H200.
"""

import ml_collections

from configs import fume

PATH = "data/synthetic_ogi/{}/3.0.0"
STAGES = {
    # Scenes of every kind teach the pH state to nobody who has not learned it in the laboratory.
    "small": {"init_from": "runs/demo", "data.height": 120, "data.width": 160, "loss.seg_dice_smooth": 25.0}
    | {"optimizer.learning_rate": 2e-3, "optimizer.warmup_epochs": 0.2, "train.epochs": 3},
    "medium": {"init_from": "runs/pretrained_small"},
    # Faint gas is missed unless it counts more.
    "large": {"init_from": "runs/pretrained_medium", "data.path": PATH.format("pretraining_large")}
    | {"loss.seg_alpha": (1.0, 1.0, 2.0), "train.batch_size": 64, "train.epochs": 15}
    # Chosen for the bias that its export adds, on pairs that the model had not seen.
    | {"model.gas_margin": 3.75}
    | {"optimizer.learning_rate": 2e-3, "optimizer.warmup_epochs": 0.5},
}


def get_config(stage: str = "large") -> ml_collections.ConfigDict:
    """Returns the published recipe with the changes below, and those of a stage."""
    if stage not in STAGES:
        raise ValueError(f"There is no stage {stage!r}; choose one of: {', '.join(STAGES)}.")
    config = fume.get_config()
    config.data.path = PATH.format("pretraining")
    config.data.height = 240
    config.data.width = 320
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
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_epochs = 0.1
    config.train.epochs = 2
    config.train.ema_decay = 0.999
    config.eval.batch_size = 40
    config.checkpoint.best_metric = "joint_score"
    config.update_from_flattened_dict(STAGES[stage])
    return config
