"""The models: size, shapes, and which input may influence which output."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fume_jax.models import count_parameters, create_model
from fume_jax.models.heads import GasMargin
from fume_jax.models.layers import CallAlike, average_weights, resize_bilinear
from fume_jax.schema import BACKGROUND, GAS, TUBE


@pytest.fixture(scope="module")
def model():
    """FUME with random weights, attention gates open."""
    model = nnx.jit(lambda: create_model("fume", rngs=nnx.Rngs(0)))()
    for gate in (model.fusion.co2_attention, model.fusion.ch4_attention, model.fusion.cross_attention):
        gate.gamma[...] = jnp.ones(1)
    return model


def batch(size=(64, 64), modality_mask=((1, 1), (1, 0), (0, 1))):
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (2, len(modality_mask), *size, 1)).astype(np.float32)
    return jnp.asarray(frames[0]), jnp.asarray(frames[1]), jnp.asarray(modality_mask, jnp.float32)


def run(model, inputs, train=False):
    """Outputs and batch statistics after one call."""
    view = nnx.view(model, deterministic=True, use_running_average=not train)
    # Not compiled as one: operations are, once for all models.
    model = nnx.merge(*nnx.split(view), copy=True)
    return model(*inputs), nnx.state(model, nnx.BatchStat)


@pytest.mark.parametrize(
    "name, parameters",
    [
        ("fume", 1_656_236),
        ("fume_separate", 2_728_124),
        ("fume_concat", 1_278_681),
        ("segmentation_only", 1_141_875),
        ("classification_only", 1_138_195),
        ("gas_aware", 1_154_707),
        ("early_fusion", 1_175_958),
        ("multi_task", 1_175_670),
    ],
)
def test_has_exactly_the_published_number_of_parameters(name, parameters):
    assert count_parameters(nnx.eval_shape(lambda: create_model(name, rngs=nnx.Rngs(0)))) == parameters


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("fumes", {}, "no model named 'fumes'; choose one of: fume, fume_separate"),
        ("fume", {"fusion": "sum"}, "fusion is 'sum'; expected one of cross_attention, self_attention, add, concat"),
        ("fume", {"gas": "n2o"}, "gas is 'n2o'; expected one of co2, ch4, both"),
        ("multi_task", {"share_encoder": False}, "fusion 'none' has one encoder"),
        ("gas_aware", {"fusion": "add"}, "fusion must be 'none'"),
        ("gas_aware", {"tasks": "segmentation"}, "classification of single frames"),
        ("early_fusion", {"gas": "ch4"}, "early fusion segments CO2"),
    ],
)
def test_a_model_that_there_is_not_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **options, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("size", [(64, 64), (65, 79), (100, 130), (480, 640)])
def test_any_size_from_64_gives_logits_of_that_size(size):
    model = nnx.eval_shape(lambda: create_model("fume", rngs=nnx.Rngs(0)))
    model.eval()
    outputs = nnx.eval_shape(lambda m, *x: m(*x), model, *batch(size))
    chex.assert_shape(outputs["cls_logits"], (3, 3))
    chex.assert_shape([outputs["co2_seg_logits"], outputs["ch4_seg_logits"]], (3, *size, 3))


@pytest.mark.parametrize(
    "inputs, message",
    [
        (batch((63, 64)), "at least 64 pixels high and wide, got 63x64"),
        ((*batch()[:2], jnp.ones((2, 2))), r"modality_mask of shape \(3, 2\), got \(2, 2\)"),
        ((batch()[0], batch((64, 96))[1], batch()[2]), "two frames of one shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        model(*inputs)


def test_a_sample_does_not_depend_on_its_neighbours(model):
    co2, ch4, modality_mask = batch()
    together, _ = run(model, (co2, ch4, modality_mask))
    for i in range(3):
        alone, _ = run(model, (co2[i : i + 1], ch4[i : i + 1], modality_mask[i : i + 1]))
        for key, value in alone.items():
            np.testing.assert_allclose(value[0], together[key][i], atol=1e-5, err_msg=key)


def test_an_absent_frame_influences_no_present_output_nor_statistic(model):
    co2, ch4, modality_mask = batch()
    garbage = (co2.at[2].set(5.0), ch4.at[1].set(-5.0), modality_mask)
    for train in (False, True):
        (a, stats_a), (b, stats_b) = run(model, (co2, ch4, modality_mask), train), run(model, garbage, train)
        np.testing.assert_allclose(a["cls_logits"], b["cls_logits"], atol=1e-5)
        np.testing.assert_allclose(a["co2_seg_logits"][:2], b["co2_seg_logits"][:2], atol=1e-5)
        np.testing.assert_allclose(a["ch4_seg_logits"][::2], b["ch4_seg_logits"][::2], atol=1e-5)
        chex.assert_trees_all_close(stats_a, stats_b, atol=1e-5)


def test_each_gas_informs_the_other_only_where_both_are_present(model):
    co2, ch4, both = batch(modality_mask=((1, 1),))
    changed = run(model, (co2, -ch4, both))[0]["cls_logits"] - run(model, (co2, ch4, both))[0]["cls_logits"]
    assert np.abs(changed).max() > 1e-4
    co2_only = both.at[0, 1].set(0)
    same = run(model, (co2, -ch4, co2_only))[0]["cls_logits"] - run(model, (co2, ch4, co2_only))[0]["cls_logits"]
    np.testing.assert_array_equal(same, 0)


def test_bfloat16_computes_close_to_float32_and_keeps_parameters_and_logits_in_float32(model):
    half = nnx.eval_shape(lambda: create_model("fume", dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    nnx.update(half, nnx.state(model))
    outputs, _ = run(half, batch())
    expected, _ = run(model, batch())
    chex.assert_tree_all_finite(outputs)
    for key, value in outputs.items():
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected[key], atol=0.1 * float(jnp.abs(expected[key]).max()), err_msg=key)
    assert {x.dtype for x in jax.tree.leaves(nnx.state(half))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    "name, options, heads",
    [
        ("fume", {"tasks": "segmentation"}, {"co2_seg_logits", "ch4_seg_logits"}),
        ("fume", {"tasks": "classification"}, {"cls_logits"}),
        ("fume", {"gas": "ch4"}, {"cls_logits", "ch4_seg_logits"}),
        ("segmentation_only", {}, {"co2_seg_logits"}),
        ("multi_task", {"gas": "ch4"}, {"cls_logits", "ch4_seg_logits"}),
        ("multi_task", {"gas": "both"}, {"cls_logits", "co2_seg_logits", "ch4_seg_logits"}),
        ("early_fusion", {"gas": "ch4", "tasks": "classification"}, {"cls_logits"}),
    ],
)
def test_a_head_that_a_model_does_not_have_is_absent(name, options, heads):
    model = nnx.eval_shape(lambda: create_model(name, **options, rngs=nnx.Rngs(0)))
    model.eval()
    assert set(nnx.eval_shape(lambda m, *x: m(*x), model, *batch())) == heads


@pytest.mark.parametrize(
    "name, options", [("fume", {"gas": "co2"}), ("multi_task", {}), ("early_fusion", {"gas": "co2"})]
)
def test_a_gas_that_is_not_read_influences_nothing(name, options):
    model = create_model(name, **options, rngs=nnx.Rngs(0))
    co2, ch4, modality_mask = batch()
    for train in (False, True):
        a, b = (run(model, (co2, frame, modality_mask), train) for frame in (ch4, -ch4))
        chex.assert_trees_all_equal(a, b)


def test_class_logits_of_single_frames_are_averaged_over_present_gases():
    model = create_model("multi_task", gas="both", rngs=nnx.Rngs(0))
    co2, ch4, _ = batch()
    masks = {
        gas: jnp.broadcast_to(jnp.asarray(m, jnp.float32), (3, 2))
        for gas, m in {"both": (1, 1), "co2": (1, 0), "ch4": (0, 1)}.items()
    }
    logits = {gas: run(model, (co2, ch4, mask))[0]["cls_logits"] for gas, mask in masks.items()}
    assert np.abs(logits["co2"] - logits["ch4"]).max() > 1e-4
    np.testing.assert_allclose(logits["both"], (logits["co2"] + logits["ch4"]) / 2, atol=1e-6)


def test_the_gas_aware_model_knows_which_gas_it_sees():
    model = create_model("gas_aware", gas="both", rngs=nnx.Rngs(0))
    frame, _, _ = batch()
    as_co2, as_ch4 = (jnp.zeros((3, 2)).at[:, i].set(1) for i in range(2))
    a, b = (run(model, (frame, frame, mask))[0]["cls_logits"] for mask in (as_co2, as_ch4))
    assert np.abs(a - b).max() > 1e-4


def test_pooling_bins_overlap_by_the_rule_of_pytorch():
    # Three bins over five rows: rows 0-1, 1-3, 3-4.
    np.testing.assert_allclose(average_weights(5, 3) @ np.arange(5), [0.5, 2.0, 3.5])


def test_gas_that_leads_nowhere_by_the_margin_is_taken_out():
    # Two frames of two by two pixels: gas leads the better of the other classes by at most 2, and by at most 4.
    rows = [[[0.0, 1, 3], [2, 0, 1]], [[-1.0, 0, 4], [0, -3, 1]]]
    logits = jnp.asarray([[row, row] for row in rows])
    margin = GasMargin(3.0)
    np.testing.assert_array_equal(margin(logits), logits)  # in training
    margin.eval()
    found = np.asarray(margin(logits))
    # Between its pixels the other classes may be as low as 0, and gas as high as 3.
    np.testing.assert_allclose(found[0], [[[0, 1, -0.01], [2, 0, -2.01]]] * 2, atol=1e-6)
    np.testing.assert_array_equal(found[1], logits[1])
    none = GasMargin(0.0)
    none.eval()
    np.testing.assert_array_equal(none(logits), logits)


def test_gas_below_the_margin_is_nowhere_once_logits_are_enlarged():
    # Tube beside background, and gas a little below either.
    logits = np.zeros((1, 6, 8, 3), np.float32)
    logits[:, :, :4, TUBE] = logits[:, :, 4:, BACKGROUND] = 5
    logits[..., GAS] = 4.9
    logits[0, 2, 3, GAS] = 6
    margin = GasMargin(3.0)
    margin.eval()
    both = jnp.asarray(logits), margin(jnp.asarray(logits))
    enlarged = [np.asarray(resize_bilinear(x, 24, 32)).argmax(-1) for x in both]
    assert (enlarged[0] == GAS).any()
    assert not (enlarged[1] == GAS).any()


def test_resize_uses_half_pixel_centres():
    x = jnp.asarray([0.0, 1.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(resize_bilinear(x, 1, 4)[0, 0, :, 0], [0, 0.25, 0.75, 1])


@pytest.mark.parametrize("train", [False, True])
def test_parts_of_both_gases_compute_together_what_each_computes_alone(model, train):
    alone, together = (nnx.view(model, together=value) for value in (False, True))
    for found, expected in zip(run(together, batch(), train), run(alone, batch(), train), strict=True):
        # Statistics of few positions amplify rounding.
        chex.assert_trees_all_close(found, expected, atol=1e-3 if train else 1e-5)


def test_parts_are_together_where_launches_are_slow(monkeypatch):
    assert not CallAlike().together
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert CallAlike().together


def test_each_head_drops_the_same_channels_of_its_own_alone_and_together(model):
    heads = [model.co2_seg_head, nnx.clone(model.co2_seg_head)]
    low, high = jnp.ones((1, 8, 8, 64)), jnp.ones((1, 2, 2, 128))

    def drop(together):
        calls = nnx.view(CallAlike(), together=together)
        options = {"size": (64, 64), "rngs": nnx.Rngs(dropout=0)}
        return calls(heads, [low, low], [high, high], [jnp.ones(1)] * 2, **options)

    (one, other), expected = drop(True), drop(False)
    assert np.abs(one - other).max() > 1e-3
    chex.assert_trees_all_close([one, other], expected, atol=1e-5)
