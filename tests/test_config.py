"""Configs: every key is read and its range checked, presets are what they are named after, old run folders open."""

import ast
import functools
import json
import math
import shutil
from pathlib import Path

import pytest

from configs import demo, fume, fume_100_epochs, fume_fast, pretrained
from fume_jax.config import OLD_KEYS, abstract_model, upgrade_values, validate_config, with_local_paths
from fume_jax.models import MODELS, architecture
from fume_jax.runtime.errors import UserError
from fume_jax.training.checkpoint import load_config, save_config

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"


def leaves(values, prefix=""):
    """Dotted names and values of a nested dict."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


KEYS = dict(leaves(fume.get_config().to_dict()))


def faults(key, value, config=None):
    """The message about a config with that value, or None if it is valid."""
    config = config or demo.get_config().unlock()
    *sections, name = key.split(".")
    with config.ignore_type():
        functools.reduce(getattr, sections, config)[name] = value
    try:
        validate_config(config)
    except UserError as error:
        return str(error)
    return None


# Values of each key that make no sense.
NONSENSE = {
    "seed": [-1, 2**32, 2**70],
    "model.name": ["fumes"],
    "model.backbone": ["vgg"],
    "model.fusion": ["sum"],
    "model.gas": ["n2o"],
    "model.tasks": ["regression"],
    "model.gas_margin": [-1.0, math.inf, math.nan],
    "model.dtype": ["float16"],
    "model.batch_norm_splits": [0, 3],
    "data.fold": [-1, 1, "0"],  # without data.folds it is 0
    "data.height": [32, 10**5, math.nan, "120"],
    "data.width": [63, 2**70, None],
    "data.sampling": ["fair"],
    "data.cache": ["disk"],
    "data.num_threads": [0, 10**6],
    "data.num_workers": [-1, 10**6],
    "data.prefetch": [0, 10**6],
    "data.timeout_seconds": [0.0, math.nan, math.inf],
    **{
        f"augment.{name}.probability": [-0.1, 1.1, math.nan]
        for name in fume.get_config().augment
        if name != "modality_dropout"
    },
    "augment.shift_scale_rotate.shift": [-0.1, 1.5],
    "augment.shift_scale_rotate.scale": [-0.1, 1.0],
    "augment.shift_scale_rotate.rotate": [-1.0, 181.0],
    "augment.elastic.affine": [-0.1, 0.5],
    "augment.elastic.sigma": [0.0, 2.0],
    "augment.elastic.amplitude": [-0.1, 2.0],
    "augment.gaussian_noise.low": [-1.0, 51.0],
    "augment.gaussian_noise.high": [9.0, math.inf],
    "augment.gaussian_blur.low": [9, 4, 1],
    "augment.gaussian_blur.high": [1, 8, 65],
    "augment.motion_blur.low": [9, 4, 1],
    "augment.motion_blur.high": [1, 6, 65],
    "augment.brightness_contrast.brightness": [-0.1, 1.5],
    "augment.brightness_contrast.contrast": [-0.1, 1.5],
    "augment.gamma.low": [0.0, 1.3],
    "augment.gamma.high": [0.7, math.inf],
    "augment.modality_dropout": [-0.1, 1.1],
    "loss.cls_alpha": [(1.0, 8.0), (0.0, 0.0, 0.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)],
    "loss.seg_alpha": [(1.0,), (0.0, 0.0, 0.0)],
    **{
        f"loss.{name}": [-1.0, math.nan, math.inf]
        for name in ("cls_gamma", "seg_gamma", "seg_focal_weight", "seg_dice_weight", "cls_weight", "seg_weight")
    },
    "loss.seg_dice_smooth": [0.0, math.nan, math.inf],
    "optimizer.name": ["lion"],
    "optimizer.schedule": ["linear"],
    "optimizer.learning_rate": [0.0, math.nan, math.inf],
    "optimizer.final_learning_rate": [-1.0],
    "optimizer.decay_epochs": [(40, 30), (0, 3)],
    "optimizer.decay_factor": [0.0],
    "optimizer.warmup_epochs": [-1.0, 12.0],
    "optimizer.weight_decay": [-1.0, math.nan],
    "optimizer.b1": [-0.1, 1.0],
    "optimizer.b2": [1.0],
    "optimizer.clip_norm": [0.0, math.nan],
    "train.batch_size": [0, -2, 2**31, "8"],
    "train.gradient_accumulation_steps": [0],
    "train.epochs": [0, 2**70],
    "train.ema_decay": [-0.1, 1.0],
    "train.max_skipped_updates": [-1],
    "early_stopping.patience": [-1],
    "early_stopping.metric": ["lost", "accuracy"],
    "early_stopping.mode": ["max"],
    "early_stopping.min_delta": [-1.0, math.nan],
    "eval.batch_size": [0],
    "eval.every_epochs": [0],
    "log.every_steps": [0],
    "log.images": [-1],
    "checkpoint.best_metric": ["loss"],
    "checkpoint.every_epochs": [0],
    "checkpoint.keep_every_epochs": [-1],
}
# Keys of which every value of their type makes sense, or which are checked where they are used.
ANY = {"deterministic", "init_from", "model.share_encoder", "data.path", "data.folds", "log.quiet", "log.wandb"}


def test_every_key_has_a_range_or_needs_none():
    assert NONSENSE.keys() | ANY == KEYS.keys()
    assert not NONSENSE.keys() & ANY


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in NONSENSE.items() for value in values])
def test_a_value_that_makes_no_sense_is_named(key, value):
    message = faults(key, value)
    assert message is not None
    # What is at fault may be the other end of a range, or a key that this one has to fit.
    section = key.rpartition(".")[0].split(".")[0]
    assert f"config.{section}" in message


@pytest.mark.parametrize(("key", "value"), [("loss.cls_alpha", 3), ("augment.flip", 3), ("loss.seg_alpha", None)])
def test_a_value_of_another_type_is_a_fault_in_plain_words(key, value):
    assert faults(key, value) is not None


def test_paths_of_a_config_file_are_on_this_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    config = demo.get_config()
    config.data.path, config.init_from = "~/data", "~bob/run"
    with_local_paths(config)
    assert (config.data.path, config.init_from) == ("/home/ada/data", "~bob/run")  # there is no such user
    config.init_from = "gs://bucket/run"
    with pytest.raises(UserError, match=r"config\.init_from is gs://bucket/run; expected a path"):
        with_local_paths(config)
    with pytest.raises(UserError, match="The config is a dict; expected get_config"):
        with_local_paths({})


def test_a_config_that_builds_on_fume_cannot_misspell_a_key():
    with pytest.raises(AttributeError, match='Did you mean "batch_size"'):
        demo.get_config().train.batchsize = 4


def test_all_faults_are_named_at_once_with_what_is_expected():
    config = demo.get_config()
    config.train.epochs = config.eval.batch_size = 0
    with pytest.raises(UserError) as error:
        validate_config(config)
    lines = str(error.value).splitlines()
    assert "config.train.epochs is 0; expected from 1 to less than 2**31" in lines
    assert "config.eval.batch_size is 0; expected from 1 to less than 2**31" in lines


def test_a_metric_that_the_model_does_not_have_is_named():
    message = faults("model.tasks", "classification")
    assert "best_metric" in message and "joint_score" in message and "accuracy" in message


def read_keys():
    """The last two parts of every chain of attributes and constant subscripts in the package."""
    found = set()
    for path in (ROOT / "fume_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(node.value.split("."))
    return found


def test_every_key_is_read_somewhere():
    found = read_keys()
    assert [key for key in KEYS if key.split(".")[-1] not in found] == []


ABLATIONS = {
    "ablation_add": {"fusion": "add"},
    "ablation_concat": {"fusion": "concat"},
    "ablation_self_attention": {"fusion": "self_attention"},
    "ablation_co2": {"gas": "co2"},
    "ablation_ch4": {"gas": "ch4"},
    "ablation_segmentation": {"tasks": "segmentation"},
    "ablation_classification": {"tasks": "classification"},
    "gas_aware": {"gas": "both"},
}


BACKBONES = {
    "backbone_mobilenet_v3_small": {"backbone": "mobilenet_v3_small"},
    "backbone_resnet18": {"backbone": "resnet18"},
    "backbone_resnet50_deeplabv3plus": {"backbone": "resnet50_deeplabv3plus", "share_encoder": False},
}


@pytest.mark.parametrize("name", fume.PRESETS)
def test_a_preset_is_of_the_model_or_ablation_that_it_is_named_after(name):
    config = fume.get_config(name)
    validate_config(config)
    expected = architecture(name if name in MODELS else "fume", **(ABLATIONS | BACKBONES).get(name, {}))
    assert abstract_model(config).options == expected


def test_presets_are_the_models_the_ablations_and_the_backbones():
    assert {*MODELS, *ABLATIONS, *BACKBONES} == set(fume.PRESETS)
    with pytest.raises(ValueError, match="no preset 'fumes'; choose one of: fume, fume_separate"):
        fume.get_config("fumes")


@pytest.mark.parametrize(
    "get_config",
    [module.get_config for module in (demo, fume_fast, fume_100_epochs)]
    + [functools.partial(pretrained.get_config, stage) for stage in pretrained.STAGES],
)
def test_every_config_is_valid_and_has_the_keys_of_fume(get_config):
    config = get_config()
    validate_config(config)
    assert dict(leaves(config.to_dict())).keys() == KEYS.keys()


def test_a_run_folder_written_by_an_earlier_version_opens_and_resumes(tmp_path):
    shutil.copy(GOLDEN / "config_2.json", tmp_path / "config.json")
    config, same = load_config(tmp_path), fume.get_config()
    validate_config(config)
    changes = {  # of the recipe of that run
        "data.path": "data/synthetic_ogi/published_320x240/2.0.0",
        "data.height": 240,
        "data.width": 320,
        "data.num_threads": 2,
        "augment.brightness_contrast.brightness": 0.1,
        "loss.cls_alpha": (1.0, 1.0, 1.0),
        "loss.cls_weight": 2.0,
        "optimizer.learning_rate": 3e-3,
        "optimizer.warmup_epochs": 0.5,
        "train.epochs": 10,
        "eval.batch_size": 27,
        "checkpoint.best_metric": "joint_score",
    }
    same.update_from_flattened_dict(changes)
    assert config.to_json(sort_keys=True) == same.to_json(sort_keys=True)
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    save_config(same, tmp_path)  # resumed: nothing that its numbers depend on has changed
    assert "share_encoder" in json.loads((tmp_path / "config.json").read_text())["model"]


def test_old_keys_keep_their_values():
    old = json.loads((GOLDEN / "config_2.json").read_text())
    old["model"]["encoder"], old["data"]["cache"], old["loss"]["gamma"] = "separate", "disk", 1.5
    new = upgrade_values(old)
    assert new["model"]["share_encoder"] is False and "encoder" not in new["model"]
    assert new["data"]["cache"] == "none"
    assert new["loss"]["cls_gamma"] == 1.5
    assert upgrade_values(new) == new
    renamed = {key for key, (new_key, _) in OLD_KEYS.items() if new_key != key}
    assert not renamed & dict(leaves(new)).keys()


def test_a_config_that_lacks_a_key_is_said_to_be_of_another_version():
    config = demo.get_config()
    with config.unlocked():
        del config.loss.seg_gamma
    with pytest.raises(UserError, match=r"another version.*seg_gamma"):
        validate_config(config)
