"""The model, its loss and its gradients equal those of the PyTorch implementation."""

import jax
import numpy as np
import pytest
from flax import nnx

from fume_jax.interop import from_state_dict
from fume_jax.interop.state_dict import state_dict_key
from fume_jax.losses import multi_task_loss
from tests import golden

NAMES = ("fume", "fume_separate")


@pytest.fixture(scope="module", params=NAMES)
def named_model(request):
    return request.param, from_state_dict(request.param, golden.state_dict(request.param))


def run(model, inputs):
    graphdef, state = nnx.split(model)
    return jax.jit(lambda s, kwargs: nnx.merge(graphdef, s)(**kwargs))(state, inputs)


@pytest.mark.parametrize(
    "size, case",
    [
        ((2, 96, 128), "both"),
        ((2, 96, 128), "co2_only"),
        ((2, 96, 128), "ch4_only"),
        pytest.param((1, 480, 640), "both", marks=pytest.mark.slow),
    ],
)
def test_logits_equal_the_reference(named_model, size, case):
    name, model = named_model
    outputs = run(model, golden.inputs(*size, case))
    stride = {96: 8, 480: 32}[size[1]]
    assert outputs.keys() == {"cls_logits", "co2_seg_logits", "ch4_seg_logits"}
    for key, value in outputs.items():
        value = np.asarray(value)
        if value.ndim == 4:
            assert value.shape == (*size, 3)
            value = value.transpose(0, 3, 1, 2)[:, :, ::stride, ::stride]
        expected = golden.GOLDEN[f"{name}/{size[1]}x{size[2]}/{case}/{key}"]
        np.testing.assert_allclose(value, expected, atol=1e-4, rtol=0, err_msg=key)


@pytest.mark.slow
def test_loss_and_every_gradient_norm_equal_the_reference(named_model):
    name, model = named_model
    inputs, targets = golden.inputs(2, 96, 128), golden.targets(2, 96, 128)
    batch = inputs | targets
    graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    loss, grads = jax.jit(
        jax.value_and_grad(lambda p: multi_task_loss(nnx.merge(graphdef, p, stats)(**inputs), batch)["loss"])
    )(params)
    np.testing.assert_allclose(loss, golden.GOLDEN[f"{name}/grad/loss"], rtol=1e-4)
    norms = {state_dict_key(path): np.linalg.norm(value) for path, value in nnx.to_flat_state(grads)}
    expected = dict(zip(golden.GOLDEN[f"{name}/grad_norm_keys"], golden.GOLDEN[f"{name}/grad_norms"], strict=True))
    assert norms.keys() == expected.keys()
    for key, norm in norms.items():
        np.testing.assert_allclose(norm, expected[key], rtol=1e-3, atol=1e-6, err_msg=key)
