"""FUME as published: full frames, 50 epochs. Presets are the baselines, ablations and other encoders.

    fume train --config=fume --workdir=runs/fume --config.data.path=DATASET
    fume train --config=fume:early_fusion --workdir=runs/early_fusion --config.data.path=DATASET

DATASET is the folder of a prepared dataset of paired frames. On 4,383 pairs the reference took 4 h 20 min on one RTX
6000 Ada and reached a test mIoU of 0.79 and a balanced accuracy of 0.98 (arXiv:2601.08205), on splits that share
recordings.
"""

import ml_collections
from ml_collections import config_dict

# The keys that each preset changes.
PRESETS = {
    "fume": {},
    # Baselines of the paper.
    "fume_separate": {"model.name": "fume_separate"},
    "fume_concat": {"model.name": "fume_concat"},
    "segmentation_only": {"model.name": "segmentation_only", "checkpoint.best_metric": "mean_iou"},
    "classification_only": {"model.name": "classification_only"},
    "gas_aware": {"model.name": "gas_aware", "model.gas": "both"},
    "early_fusion": {"model.name": "early_fusion"},
    "multi_task": {"model.name": "multi_task"},
    # Ablations of FUME.
    "ablation_self_attention": {"model.fusion": "self_attention"},
    "ablation_add": {"model.fusion": "add"},
    "ablation_concat": {"model.fusion": "concat"},
    "ablation_co2": {"model.gas": "co2"},
    "ablation_ch4": {"model.gas": "ch4"},
    "ablation_segmentation": {"model.tasks": "segmentation", "checkpoint.best_metric": "mean_iou"},
    "ablation_classification": {"model.tasks": "classification"},
    # FUME with other encoders.
    "backbone_mobilenet_v3_small": {"model.backbone": "mobilenet_v3_small"},
    "backbone_resnet18": {"model.backbone": "resnet18"},
    # The largest: an encoder for each gas.
    "backbone_resnet50_deeplabv3plus": {"model.name": "fume_separate", "model.backbone": "resnet50_deeplabv3plus"},
}


def get_config(preset: str = "fume") -> ml_collections.ConfigDict:
    """Returns every key with its default, changed by a preset; ValueError if there is no such preset."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}; choose one of: {', '.join(PRESETS)}.")
    config = ml_collections.ConfigDict()
    config.seed = 0  # decides parameters, order of examples, augmentation and dropout
    config.deterministic = False  # True repeats the same numbers on a GPU too, at some cost of speed; a CPU always does
    config.init_from = config_dict.placeholder(str)  # run folder whose best checkpoint initialises the parameters

    config.model = ml_collections.ConfigDict()
    config.model.name = "fume"  # one of fume_jax.models.MODELS, see `fume summary`
    # Changes of the named model; None changes nothing.
    config.model.backbone = config_dict.placeholder(str)  # one of fume_jax.models.backbones.BACKBONES
    config.model.share_encoder = config_dict.placeholder(bool)  # True: one encoder for both gases; False: one each
    config.model.fusion = config_dict.placeholder(str)  # cross_attention, self_attention, add, concat, early, none
    config.model.gas = config_dict.placeholder(str)  # gas that the model reads: co2, ch4, both
    config.model.tasks = config_dict.placeholder(str)  # segmentation, classification, both
    # Logits by which gas must lead somewhere in a frame for any to be found there, outside of training; 0: no margin.
    config.model.gas_margin = 0.0
    config.model.dtype = "float32"  # dtype of the computation; bfloat16 on accelerators that support it
    # Number of parts of a batch, consecutive pairs, with their own batch statistics; 1 uses those of the whole batch.
    # With many devices, their number or a multiple of it avoids the exchange of statistics.
    config.model.batch_norm_splits = 1

    config.data = ml_collections.ConfigDict()
    config.data.path = "data/synthetic_ogi/demo/3.0.0"  # folder of the prepared dataset
    config.data.folds = config_dict.placeholder(str)  # table of the fold of every recording; None: the dataset's splits
    config.data.fold = 0  # the fold that tests; the next one validates, the others train
    config.data.height = 480
    config.data.width = 640
    config.data.sampling = "balanced"  # balanced: every class equally often, with replacement; or uniform
    # Place of decoded examples. none: they are decoded every epoch; device: the memory of every device, 1.2 MB per pair
    # of 640x480, which then augments them too; auto: device on an accelerator if they take less than half of its
    # memory, else none.
    config.data.cache = "auto"
    config.data.num_threads = 4  # threads that read and augment, in this process or each worker process
    config.data.num_workers = 0  # worker processes that read and augment instead of this one, for hosts of many cores
    config.data.prefetch = 8  # batches to keep ready
    config.data.timeout_seconds = 300.0  # time without a batch after which the run ends

    # The operations apply in this order, see fume_jax/learning/augment.py; one of probability 0 is left out.
    config.augment = ml_collections.ConfigDict()
    config.augment.flip = {"probability": 0.5}
    config.augment.shift_scale_rotate = {"probability": 0.5, "shift": 0.1, "scale": 0.15, "rotate": 15.0}
    config.augment.elastic = {"probability": 0.3, "affine": 50 / 480, "sigma": 50 / 480, "amplitude": 0.01}
    config.augment.one_of = {"probability": 0.3}  # one of the next three, in proportion to their own probabilities
    config.augment.gaussian_noise = {"probability": 1.0, "low": 10.0, "high": 50.0}  # variance of grey levels
    config.augment.gaussian_blur = {"probability": 1.0, "low": 3, "high": 7}  # pixels of the kernel
    config.augment.motion_blur = {"probability": 1.0, "low": 3, "high": 7}  # pixels of the kernel
    config.augment.brightness_contrast = {"probability": 0.5, "brightness": 0.2, "contrast": 0.2}
    config.augment.gamma = {"probability": 0.3, "low": 0.8, "high": 1.2}  # exponent
    config.augment.invert = {"probability": 0.0}  # not of the published recipe, whose cameras are of one polarity
    config.augment.modality_dropout = 0.2  # probability that a pair loses one of its two gases

    config.loss = ml_collections.ConfigDict()
    config.loss.cls_alpha = (1.0, 8.0, 1.2)  # weights of Healthy, Transitional, Acidotic
    config.loss.cls_gamma = 2.0  # focusing of the classification loss; 0 is cross entropy
    config.loss.seg_alpha = (1.0, 1.0, 1.0)  # weights of background, tube, gas
    config.loss.seg_gamma = 2.0  # focusing of the segmentation loss; 0 is cross entropy
    config.loss.seg_focal_weight = 0.5  # weights of the two parts of the segmentation loss; 0 leaves one out
    config.loss.seg_dice_weight = 0.5
    # Pixels added above and below the fraction; with frames without gas a thousandth of the frame.
    config.loss.seg_dice_smooth = 1.0
    config.loss.cls_weight = 1.0  # weights of the two tasks
    config.loss.seg_weight = 1.0

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"  # adamw, adam, sgd
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"  # cosine, step, constant; all after the warm-up
    config.optimizer.final_learning_rate = 1e-5  # last rate of the cosine schedule
    config.optimizer.decay_epochs = (30, 40)  # epochs at which the step schedule multiplies the rate by decay_factor
    config.optimizer.decay_factor = 0.1
    config.optimizer.warmup_epochs = 0.0
    config.optimizer.weight_decay = 1e-4
    config.optimizer.b1 = 0.9  # momentum, also of sgd
    config.optimizer.b2 = 0.999
    config.optimizer.clip_norm = 1.0  # largest norm of the gradient; inf clips nothing

    config.train = ml_collections.ConfigDict()
    config.train.batch_size = 8  # pairs per step over all devices
    config.train.gradient_accumulation_steps = 1  # parts of a batch to process one after the other, to save memory
    config.train.epochs = 50
    config.train.ema_decay = 0.0  # such as 0.999: evaluate a moving average of the parameters; 0 evaluates them
    config.train.max_skipped_updates = 0  # allowed number of steps without finite loss and gradient

    # Ends a run once a metric of the validation split has not improved for `patience` evaluations; 0 never does.
    config.early_stopping = {"patience": 0, "metric": "loss", "mode": "min", "min_delta": 0.0}

    config.eval = ml_collections.ConfigDict()
    config.eval.batch_size = 8  # over all devices, rounded up to a multiple of their number
    config.eval.every_epochs = 1

    # These sections may change when a run resumes, but for the choice of the best checkpoint.
    config.log = ml_collections.ConfigDict()
    config.log.every_steps = 50
    config.log.images = 4  # validation pairs to draw at every evaluation
    config.log.quiet = False  # True prints only warnings, errors and the final scores
    config.log.wandb = config_dict.placeholder(str)  # Weights & Biases project to log to as well

    config.checkpoint = ml_collections.ConfigDict()
    config.checkpoint.best_metric = (
        "balanced_accuracy"  # of the validation split, in fume_jax.learning.metrics.HEADLINES
    )
    config.checkpoint.every_epochs = 1  # how often the latest is saved; also after every evaluation and at a stop
    config.checkpoint.keep_every_epochs = 0  # epochs whose multiples are kept besides the latest and the best; 0: none
    config.update_from_flattened_dict(PRESETS[preset])
    return config.lock()  # a config that builds on this one cannot misspell a key
