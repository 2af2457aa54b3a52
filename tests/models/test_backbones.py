"""The encoders: sizes and features are those of the published networks, and absent frames do not count in training."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import fume
from fume_jax.config import create_loss_fn
from fume_jax.interop import from_state_dict
from fume_jax.interop.torch_model import create_torch_model
from fume_jax.learning.step import create_train_state, jit_train_step
from fume_jax.models import count_parameters, create_model
from fume_jax.models.backbones import BACKBONES
from fume_jax.schema import batch_spec
from tests import golden

PUBLISHED = ("mobilenet_v3_small", "resnet18", "resnet50_deeplabv3plus")


@functools.cache
def encoder(name):
    """An encoder in evaluation mode, with weights by their torchvision names."""
    options = {"name": "segmentation_only", "backbone": name}
    shapes = {key: tuple(value.shape) for key, value in create_torch_model(**options).state_dict().items()}
    weights = {key: golden.weight(key.removeprefix("encoder."), shape) for key, shape in shapes.items()}
    return from_state_dict(state_dict=weights, **options).encoder


@pytest.mark.parametrize(
    "name, published, left_out, added",
    [
        # The first convolution reads one channel in place of three; layers from the last linear one on are left out.
        ("resnet18", 11_689_512, 2 * 49 * 64 + (512 + 1) * 1000, 0),
        # Added are the pyramid, its last convolution and the one of the fine features.
        (
            "resnet50_deeplabv3plus",
            25_557_032,
            2 * 49 * 64 + (2048 + 1) * 1000,
            2048 * 128 * (1 + 3 * 9 + 1) + 5 * 128 * 128 + 6 * 2 * 128 + 256 * 48 + 2 * 48,
        ),
        # The last 1x1 convolution, to 576 channels, is left out as well, and both linear layers after it.
        ("mobilenet_v3_small", 2_542_856, 2 * 9 * 16 + (96 + 2) * 576 + (576 + 1) * 1024 + (1024 + 1) * 1000, 0),
    ],
)
def test_has_as_many_parameters_as_published(name, published, left_out, added):
    assert count_parameters(nnx.eval_shape(lambda: BACKBONES[name](rngs=nnx.Rngs(0)))) == published - left_out + added


@pytest.mark.parametrize("name", PUBLISHED)
def test_features_equal_those_of_torchvision(name):
    features = encoder(name)(jnp.asarray(golden.backbone_frame()), jnp.ones(1))
    for part, x in zip(("low", "high"), features, strict=True):
        expected = golden.BACKBONES[f"{name}/{part}"]
        np.testing.assert_allclose(golden.thinned(np.asarray(x)), expected, atol=1e-4, rtol=0, err_msg=part)


@pytest.mark.parametrize("name", ("fast_scnn", *PUBLISHED))
def test_features_are_as_declared(name):
    backbone, size = BACKBONES[name], (65, 79)

    def encode(frames):
        return backbone(dtype=jnp.bfloat16, rngs=nnx.Rngs(0))(frames, jnp.ones(2))

    features = nnx.eval_shape(encode, jax.ShapeDtypeStruct((2, *size, 1), jnp.float32))
    for x, channels, stride in zip(features, backbone.channels, backbone.strides, strict=True):
        chex.assert_shape(x, (2, *(math.ceil(side / stride) for side in size), channels))
        assert x.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "name", [PUBLISHED[0], *(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED[1:])]
)
def test_an_absent_frame_does_not_count_in_training(name):
    frames = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, 64, 64, 1)), jnp.float32)
    alone, beside = (nnx.clone(encoder(name)) for _ in range(2))
    alone.train()
    beside.train()
    expected, features = alone(frames[:2], jnp.ones(2)), beside(frames, jnp.asarray([1.0, 1.0, 0.0]))
    for x, y in zip(features, expected, strict=True):
        # Statistics of eight values amplify rounding; a third frame that counts moves the features by more than 0.6.
        np.testing.assert_allclose(x[:2], y, atol=1e-2)
    chex.assert_trees_all_close(*(nnx.state(module, nnx.BatchStat) for module in (beside, alone)), atol=1e-4)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_training_step_moves_every_parameter(name):
    rng, tx = np.random.default_rng(0), optax.sgd(0.1)
    spec = batch_spec(2, 64, 64)
    batch = {key: rng.uniform(-1, 1, x.shape).astype(x.dtype) for key, x in spec.items()}
    batch |= {"modality_mask": np.ones((2, 2), np.float32), "valid": np.ones(2, bool)}

    def create():
        return create_model("multi_task", gas="both", backbone=name, rngs=nnx.Rngs(0))

    state = jax.jit(lambda: create_train_state(create(), tx))()
    before = jax.device_get(state.params)
    step = jit_train_step(nnx.eval_shape(create), tx, create_loss_fn(fume.get_config()), seed=0)
    state, metrics = step(state, batch)
    assert np.isfinite(metrics["loss"]) and metrics["skipped"] == 0
    for (path, old), new in zip(jax.tree.leaves_with_path(before), jax.tree.leaves(state.params), strict=True):
        assert np.any(old != new), path


def test_two_encoders_of_resnet50_are_of_the_size_of_a_deeplab_of_two_streams():
    model = nnx.eval_shape(lambda: create_model("fume_separate", backbone=PUBLISHED[2], rngs=nnx.Rngs(0)))
    assert count_parameters(model) == 62_979_516
