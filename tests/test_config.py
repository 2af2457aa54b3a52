"""Values of a config that make no sense are refused, each by its name."""

import functools

import pytest

from configs import demo
from fume_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("model.name", "fumes", "config.model: There is no model named 'fumes'; choose one of: fume, fume_sep"),
        ("model.fusion", "sum", "config.model: fusion is 'sum'; expected one of cross_attention"),
        ("model.tasks", "classification", "best_metric is 'joint_score'; a model of classification alone has acc"),
        ("model.batch_norm_splits", 3, "config.model.batch_norm_splits is 3; expected a divisor of the 8 pairs"),
        ("model.batch_norm_splits", 0, "config.model.batch_norm_splits is 0; expected a divisor"),
        ("data.height", 32, "config.data.height is 32; expected at least 64"),
        ("data.cache", "gpu", "config.data.cache is 'gpu'; expected one of auto, none, disk, device"),
        ("augment.motion_blur.high", 6, "config.augment.motion_blur.high is 6; expected an odd number of pixels"),
        ("train.epochs", 0, "config.train.epochs is 0; expected at least 1"),
        ("train.batch_size", -2, "config.train.batch_size is -2; expected at least 1"),
        ("train.ema_decay", 1.0, "config.train.ema_decay is 1.0; expected from 0 to less than 1"),
        ("loss.alpha", (1.0, 8.0), "config.loss.cls_alpha is (1.0, 8.0); expected 3 weights"),
        ("loss.seg_alpha", (1.0,), "config.loss.seg_alpha is (1.0,); expected 3 weights, one a mask value"),
        ("optimizer.name", "lion", "config.optimizer.name is 'lion'; expected one of adamw, adam, sgd"),
        ("optimizer.schedule", "linear", "config.optimizer.schedule is 'linear'; expected one of cosine, step"),
        ("optimizer.warmup_epochs", 12.0, "config.optimizer.warmup_epochs is 12.0; expected less than train.epochs"),
        ("checkpoint.best_metric", "loss", "config.checkpoint.best_metric is 'loss'; expected one of iou_gas"),
        ("early_stopping.metric", "lost", "config.early_stopping.metric is 'lost'; expected one of iou_gas"),
        ("early_stopping.metric", "accuracy", "config.early_stopping.mode is 'min'; expected max for that metric"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(key, value, words):
    config = demo.get_config()
    check(config)
    *sections, name = key.split(".")
    with config.ignore_type():
        functools.reduce(getattr, sections, config)[name] = value
    with pytest.raises(UserError) as error:
        check(config)
    assert words in str(error.value)


def test_all_faults_are_named_at_once():
    config = demo.get_config()
    config.train.epochs = config.eval.batch_size = 0
    with pytest.raises(UserError) as error:
        check(config)
    assert len(str(error.value).splitlines()) >= 2
    assert {"config.train.epochs", "config.eval.batch_size"} <= set(str(error.value).split())
