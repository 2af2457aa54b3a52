"""Both baselines run the same recipe, which is that of the configs."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import torch
from flax import nnx

from benchmarks import exported_baseline, jax_baseline, torch_baseline
from benchmarks.jax_baseline import RECIPE, depthwise_lowering, random_batch
from configs import fume
from fume_jax import config
from fume_jax.inference.backends import nhwc
from fume_jax.models import architecture, depthwise
from fume_jax.schema import CLASSES, GASES, MASK_CLASSES, batch_spec


def test_the_recipe_has_the_keys_of_the_configs():
    def keys(section):
        return {key: keys(value) for key, value in section.items()} if isinstance(section, dict) else None

    assert keys(RECIPE) == keys(fume.get_config().to_dict())


def test_the_recipe_is_augmented_and_trained_as_the_package_does():
    recipe = ml_collections.ConfigDict(RECIPE)
    assert jax_baseline.create_augmentation() == config.create_augmentation(recipe)
    batch, outputs = _batch_and_outputs()
    assert jax_baseline.loss_fn(outputs, batch) == config.create_loss_fn(recipe)(outputs, batch)


def test_pytorch_computes_the_same_loss():
    batch, outputs = _batch_and_outputs()
    tensors = torch_baseline.torch_batch(batch | outputs)
    assert tensors["co2_frame"].shape == (4, 1, 16, 24) and tensors["co2_mask"].dtype == torch.int64
    loss = torch_baseline.multi_task_loss(tensors, tensors)
    assert float(loss) == pytest.approx(float(jax_baseline.loss_fn(outputs, batch)["loss"]), rel=1e-5)


def _batch_and_outputs():
    rng = np.random.default_rng(1)
    batch = random_batch(4, 16, 24) | {"labels": np.array([0, 1, 2, 1], np.int32)}
    outputs = {f"{gas}_seg_logits": rng.normal(size=(4, 16, 24, len(MASK_CLASSES))) for gas in GASES}
    outputs["cls_logits"] = rng.normal(size=(4, len(CLASSES)))
    return batch, {name: x.astype(np.float32) for name, x in outputs.items()}


@pytest.mark.parametrize("half", [False, True])
def test_pytorch_infers_and_takes_training_steps(half):
    torch.set_num_threads(1)  # many that wait for one another take long where other tests run
    batch = random_batch(1, 64, 64)
    torch_baseline.Inference(batch, half=half)()
    step = torch_baseline.TrainingStep(batch, half=half)
    before = [parameter.clone() for parameter in step._network.parameters()]
    assert step() is step and step.memory_bytes == 0
    assert not all(map(torch.equal, before, step._network.parameters()))


@pytest.mark.slow
def test_onnx_runtime_computes_the_logits_of_the_same_model():
    batch = random_batch(1, 64, 64)
    found = [nhwc(x) for x in exported_baseline.Inference(batch, runtime="onnxruntime")._predict_fn()]
    model = jax_baseline._create_model_fn("float32", None)()
    model.eval()
    expected = model(*(batch[name] for name in ("co2_frame", "ch4_frame", "modality_mask")))
    assert len(found) == len(expected) == 3
    for x in expected.values():
        assert any(x.shape == y.shape and np.allclose(x, y, rtol=0, atol=1e-6) for y in found)


def test_both_take_another_encoder():
    options = {"backbone": "mobilenet_v3_small"}
    network = torch_baseline.Inference(random_batch(1, 64, 64), **options)._network
    model = nnx.eval_shape(jax_baseline._create_model_fn("float32", **options))
    assert model.options == network.options == architecture("fume", **options)


def test_a_random_batch_is_a_batch():
    assert jax.tree.map(jnp.shape, random_batch(2, 8, 16)) == {k: x.shape for k, x in batch_spec(2, 8, 16).items()}


def test_depthwise_convolutions_are_traced_as_the_context_says():
    def traced():
        arrays = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
        return jax.jit(lambda x, kernel: depthwise.depthwise_conv(x, kernel, 1)).lower(*arrays).as_text()

    before = depthwise.LOWERING
    with depthwise_lowering("library"):
        assert "stablehlo.convolution" in traced()
    with depthwise_lowering("shifted"):
        assert "stablehlo.convolution" not in traced()
    with depthwise_lowering(None):
        assert depthwise.LOWERING is before
    assert depthwise.LOWERING is before
