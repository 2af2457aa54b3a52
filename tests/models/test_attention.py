"""Where the attention looks, against what the fusion itself computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fume_jax.models import create_model
from fume_jax.models.attention_maps import attention_maps


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(jax.random.key(0))
    frames = [jax.random.uniform(key, (2, 64, 96, 1), minval=-1) for key in keys]
    return (*frames, jnp.ones((2, 2)))


def evaluated(**options):
    model = create_model("fume", rngs=nnx.Rngs(0), **options)
    model.eval()
    return model


@pytest.mark.slow
def test_maps_are_the_weights_averaged_over_who_looks(inputs):
    model = evaluated()
    model.fusion.co2_attention.gamma[...] = jnp.array([0.5])
    for attention in (model.fusion.co2_attention, model.fusion.cross_attention):
        attention.query.kernel[...] *= 1000  # a fresh one hardly tells positions apart
    maps = attention_maps(model, *inputs)
    co2, ch4 = (model.encoder(frame, jnp.ones(2))[1] for frame in inputs[:2])
    looks = {"co2_to_co2": model.fusion.co2_attention.weights(co2, co2)}
    co2 = co2 + model.fusion.co2_attention(co2, co2)[0]
    looks["co2_to_ch4"] = model.fusion.cross_attention.weights(co2, ch4)
    looks["ch4_to_co2"] = model.fusion.cross_attention.weights(ch4, co2)
    assert set(maps) == {*looks, "ch4_to_ch4"}
    for name, weights in looks.items():
        expected = np.asarray(weights).reshape(2, 6, 2, 3).mean(1) * 6
        np.testing.assert_allclose(maps[name], expected, rtol=1e-4, err_msg=name)
        assert np.ptp(maps[name]) > 0.1


@pytest.mark.slow
def test_an_even_spread_is_one_everywhere(inputs):
    model = evaluated()
    model.fusion.ch4_attention.query.kernel[...] *= 0
    model.fusion.ch4_attention.query.bias[...] *= 0
    np.testing.assert_allclose(attention_maps(model, *inputs)["ch4_to_ch4"], 1, rtol=1e-5)


def test_models_without_attention_across_gases_or_at_all_say_so(inputs):
    assert set(attention_maps(evaluated(fusion="self_attention"), *inputs)) == {"co2_to_co2", "ch4_to_ch4"}
    assert attention_maps(evaluated(fusion="concat"), *inputs) == {}
    assert attention_maps(evaluated(tasks="segmentation"), *inputs) == {}
