"""State dicts that do not fit are refused with every fault listed."""

import chex
import numpy as np
import pytest
import torch
from flax import nnx

from fume_jax.interop import from_state_dict, to_state_dict
from fume_jax.interop.state_dict import state_dict_key
from fume_jax.models import MODELS, create_model
from tests import golden

KEY = "fusion.cross_att.query_conv.weight"


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_a_key_and_every_key_a_parameter(name):
    model = nnx.eval_shape(lambda: create_model(name, rngs=nnx.Rngs(0)))
    keys = [state_dict_key(path, model.options) for path, _ in nnx.to_flat_state(nnx.state(model))]
    assert len(keys) == len(set(keys))
    twin = "ch4_encoder." if name in golden.SHARED else "-"
    assert set(keys) == {k for k in golden.SHAPES[name] if "num_batches" not in k and not k.startswith(twin)}


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_survives_the_way_there_and_back_bit_by_bit(name):
    state_dict = golden.state_dict(name)
    back = to_state_dict(from_state_dict(name, state_dict))
    assert back.keys() == state_dict.keys()
    for key, value in state_dict.items():
        assert (back[key].shape, back[key].dtype) == (value.shape, value.dtype), key
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_a_model_survives_the_way_there_and_back_bit_by_bit():
    model = create_model("fume", rngs=nnx.Rngs(3))
    chex.assert_trees_all_equal(nnx.state(from_state_dict("fume", to_state_dict(model))), nnx.state(model))


def test_missing_unexpected_and_misshapen_keys_are_all_listed():
    state_dict = golden.state_dict("fume")
    del state_dict["cls_head.2.bias"], state_dict["fusion.fusion_conv.1.num_batches_tracked"]
    state_dict["cls_head.9.bias"] = np.zeros(3)
    state_dict[KEY] = np.zeros((64, 128))
    with pytest.raises(ValueError) as error:
        from_state_dict("fume", state_dict)
    assert str(error.value).splitlines() == [
        "The state dict does not fit 'fume', 4 faults:",
        "  missing: cls_head.2.bias",
        "  missing: fusion.fusion_conv.1.num_batches_tracked",
        "  unexpected: cls_head.9.bias",
        f"  misshapen: {KEY} is (64, 128), expected (64, 128, 1, 1)",
    ]


def test_a_shared_encoder_must_be_listed_twice_alike():
    state_dict = golden.state_dict("fume")
    twin = "ch4_encoder.learning_to_downsample.conv.bn.bias"
    state_dict[twin] = state_dict[twin] + 1
    with pytest.raises(ValueError, match=f"differs from co2_encoder.learning_to_downsample.conv.bn.bias: {twin}"):
        from_state_dict("fume", state_dict)


def test_torch_tensors_are_taken_and_the_model_comes_in_evaluation_mode():
    tensors = {key: torch.tensor(value) for key, value in golden.state_dict("fume").items()}
    model = from_state_dict("fume", tensors)
    np.testing.assert_array_equal(model.fusion.cross_attention.query.kernel[...], tensors[KEY][:, :, 0, 0].T)
    assert model.fusion.norm.use_running_average
    assert model.cls_head.dropout.deterministic
