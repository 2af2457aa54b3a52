"""Ablations of FUME: 20 runs, each of which changes one thing of the published recipe.

    python -m launch.sweep --sweep=launch/sweeps/ablations.py

The changes concern encoder sharing, fusion, multi-task learning, input modality, loss and class imbalance. All runs
are compared with `reference`.
"""

from launch.plan import Sweep


def get_sweep() -> Sweep:
    return Sweep(
        entries={
            "reference": {},
            "encoder_separate": {"model.share_encoder": False},
            "fusion_self_attention": {"model.fusion": "self_attention"},
            "fusion_add": {"model.fusion": "add"},
            "fusion_concat": {"model.fusion": "concat"},
            "fusion_early": {"model.fusion": "early"},
            "fusion_none": {"model.fusion": "none"},
            "task_segmentation": {"config": "fume:ablation_segmentation"},
            "task_classification": {"config": "fume:ablation_classification"},
            "input_co2": {"config": "fume:ablation_co2"},
            "input_ch4": {"config": "fume:ablation_ch4"},
            "loss_cross_entropy": {"loss.cls_gamma": 0.0, "loss.seg_gamma": 0.0},
            "loss_cls_cross_entropy": {"loss.cls_gamma": 0.0},
            "loss_seg_cross_entropy": {"loss.seg_gamma": 0.0},
            "loss_focal_alone": {"loss.seg_dice_weight": 0.0, "loss.seg_focal_weight": 1.0},
            "loss_dice_alone": {"loss.seg_dice_weight": 1.0, "loss.seg_focal_weight": 0.0},
            # The reference balances classes twice: by sampling, and by the weights of their losses.
            "imbalance_sampling_alone": {"loss.cls_alpha": (1.0, 1.0, 1.0)},
            "imbalance_weights_alone": {"data.sampling": "uniform"},
            "imbalance_ignored": {"loss.cls_alpha": (1.0, 1.0, 1.0), "data.sampling": "uniform"},
            "modality_dropout_none": {"augment.modality_dropout": 0.0},
        }
    )
