"""One step: what it changes, what decides it, and that sharding does not matter."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from configs import fume
from fume_jax.config import create_example_losses, create_loss_fn
from fume_jax.learning.step import (
    create_train_state,
    eval_step,
    flip_step,
    jit_train_step,
    predict_step,
    split_model,
    train_step,
)
from fume_jax.models import create_model
from fume_jax.runtime.mesh import batch_sharding, create_mesh, replicated
from fume_jax.schema import batch_spec

pytestmark = pytest.mark.usefixtures("standard_promotion")
SIZE = 64
LOSS_FN, EXAMPLE_LOSSES = create_loss_fn(fume.get_config()), create_example_losses(fume.get_config())


def random_batch(batch_size, seed=0):
    rng = np.random.default_rng(seed)
    batch = {key: np.zeros(spec.shape, spec.dtype) for key, spec in batch_spec(batch_size, SIZE, SIZE).items()}
    for gas in ("co2", "ch4"):
        mask = rng.integers(0, 3, (batch_size, 8, 8)).repeat(8, 1).repeat(8, 2)
        batch[f"{gas}_mask"] = mask.astype(np.int32)
        batch[f"{gas}_frame"] = (mask[..., None] - 1 + 0.1 * rng.normal(size=(*mask.shape, 1))).astype(np.float32)
    batch["modality_mask"] = np.ones((batch_size, 2), np.float32)
    batch["modality_mask"][1::4, 1] = 0
    batch["ch4_frame"][1::4] = 0
    batch["labels"] = rng.integers(0, 3, batch_size).astype(np.int32)
    batch["valid"] = np.ones(batch_size, bool)
    return batch


@pytest.fixture(scope="module")
def setup():
    """Compiled SGD step and initial state; SGD, since Adam blows up rounding where the true gradient is 0."""
    tx = optax.sgd(0.05)
    abstract = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    state = jax.jit(lambda: create_train_state(create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)), tx))()
    return jit_train_step(abstract, tx, LOSS_FN, seed=0), jax.device_get(state), tx


@pytest.mark.slow
def test_steps_lower_the_loss_and_move_parameters_and_statistics(setup):
    step, state, _ = setup
    batch, start = random_batch(4), state
    losses = []
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    assert int(state.step) == 8
    chex.assert_trees_all_equal_shapes_and_dtypes(jax.device_get(state), start)
    chex.assert_tree_all_finite(state)
    for part in ("params", "batch_stats"):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, getattr(state, part), getattr(start, part))
        # Attention starts behind a closed gate: its parameters have no gradient until the gate moves.
        still = [p for p, m in jax.tree.leaves_with_path(moved) if not m and "attention" not in str(p)]
        assert not still


@pytest.mark.slow
def test_seed_and_step_alone_decide_dropout(setup):
    step, state, tx = setup
    batch = random_batch(4)
    (_, a), (_, b) = step(state, batch), step(state, batch)
    assert float(a["loss"]) == float(b["loss"])
    _, later = step(state.replace(step=np.int32(5)), batch)
    assert float(later["loss"]) != float(a["loss"])
    abstract = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    _, reseeded = jit_train_step(abstract, tx, LOSS_FN, seed=1)(state, batch)
    assert float(reseeded["loss"]) != float(a["loss"])


@pytest.mark.slow
def test_padding_changes_nothing_but_the_dropout_masks(setup):
    _, state, tx = setup
    model = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    model.set_attributes(deterministic=True)
    graphdef, _, _ = split_model(model)
    batch = random_batch(3)
    padding = jax.tree.map(lambda x: np.full_like(x[:1], 1), batch) | {"valid": np.zeros(1, bool)}
    padded = jax.tree.map(lambda a, b: np.concatenate([a, b]), batch, padding)
    chex.clear_trace_counter()
    step = jax.jit(lambda s, b: train_step(s, b, graphdef=graphdef, tx=tx, loss_fn=LOSS_FN, seed=0))
    (a, a_metrics), (b, b_metrics) = step(state, batch), step(state, padded)
    chex.assert_trees_all_close(a_metrics, b_metrics, rtol=1e-4)
    chex.assert_trees_all_close(a.batch_stats, b.batch_stats, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_eight_devices_take_the_same_step_as_one(setup):
    step, state, _ = setup
    mesh, batch = create_mesh(), random_batch(16)
    _, expected = step(state, batch)
    sharded = jax.device_put(batch, batch_sharding(mesh))
    assert len(sharded["co2_frame"].sharding.device_set) == 8
    _, metrics = step(jax.device_put(state, replicated(mesh)), sharded)
    # Rounding flips the sign of a few activations near 0, which the gradient sees and the loss does not.
    np.testing.assert_allclose(metrics.pop("grad_norm"), expected.pop("grad_norm"), rtol=1e-3)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_second_batch_of_one_shape_does_not_trace_again(setup):
    _, state, tx = setup
    abstract = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    loss_fn = chex.assert_max_traces(lambda outputs, batch: LOSS_FN(outputs, batch), n=1)
    step = jit_train_step(abstract, tx, loss_fn, seed=0)
    for seed in range(2):
        state, _ = step(state, random_batch(2, seed))


@pytest.fixture(scope="module")
def evaluate(setup):
    """Compiled evaluation of a batch with the initial state."""
    _, state, _ = setup
    model = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    model.eval()
    predict_fn = functools.partial(predict_step, graphdef=split_model(model)[0])
    options = {"predict_fn": predict_fn, "losses_fn": EXAMPLE_LOSSES, "masks": True}
    return jax.jit(lambda b: eval_step(state.params, state.batch_stats, b, **options)), predict_fn


@pytest.mark.slow
def test_what_evaluation_says_of_an_example_depends_on_that_example_alone(evaluate):
    step, _ = evaluate
    batch = random_batch(4)
    batch["valid"][3] = False
    together = step(batch)
    assert {len(values) for values in together.values()} == {4}
    singles = [step(jax.tree.map(lambda x, i=i: x[i : i + 1], batch)) for i in range(4)]
    for name, values in together.items():
        expected = np.concatenate([single[name] for single in singles])
        if name.endswith(("loss", "probabilities")):
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        elif not name.endswith("prediction"):
            np.testing.assert_array_equal(values, expected, err_msg=name)
    assert together["cls_confusion"].sum() == 3
    assert together["co2_confusion"].sum() == 3 * SIZE**2
    assert together["ch4_confusion"].sum() == 2 * SIZE**2
    hits = (together["co2_prediction"] == batch["co2_mask"])[:3].sum()
    assert np.trace(np.asarray(together["co2_confusion"]).sum(0)) == hits


@pytest.mark.slow
def test_the_mean_over_a_frame_and_its_mirror_image_is_the_same_for_both(setup, evaluate):
    _, state, _ = setup
    predict_fn = evaluate[1]
    predict = jax.jit(lambda b: flip_step(state.params, state.batch_stats, b, predict_fn=predict_fn))
    batch = random_batch(2)
    mirrored = {**batch, **{f"{gas}_frame": batch[f"{gas}_frame"][:, :, ::-1] for gas in ("co2", "ch4")}}
    a, b = predict(batch), predict(mirrored)
    np.testing.assert_allclose(a["cls_logits"], b["cls_logits"], atol=1e-5)
    np.testing.assert_allclose(a["co2_seg_logits"], b["co2_seg_logits"][:, :, ::-1], atol=1e-5)
    np.testing.assert_allclose(np.exp(a["co2_seg_logits"]).sum(-1), 1, atol=1e-5)
    plain = [jax.nn.softmax(predict_fn(state.params, state.batch_stats, x)["cls_logits"]) for x in (batch, mirrored)]
    np.testing.assert_allclose(np.exp(a["cls_logits"]), (plain[0] + plain[1]) / 2, atol=1e-5)


@pytest.mark.slow
def test_a_batch_in_parts_gives_the_mean_gradient_and_loss_of_the_parts(setup):
    _, state, tx = setup
    model = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    model.set_attributes(deterministic=True)
    options = {"graphdef": split_model(model)[0], "tx": tx, "loss_fn": LOSS_FN, "seed": 0}
    step = jax.jit(lambda s, b: train_step(s, b, **options))
    in_parts = jax.jit(lambda s, b: train_step(s, b, accumulation_steps=2, **options))
    batch = random_batch(4)
    halves = [step(state, jax.tree.map(lambda x, i=i: x[i::2], batch)) for i in range(2)]
    new, metrics = in_parts(state, batch)
    for name in ("loss", "cls_loss", "co2_seg_loss"):
        assert float(metrics[name]) == pytest.approx(np.mean([float(m[name]) for _, m in halves]), rel=1e-4)
    # Plain descent: the mean gradient moves the parameters by the mean of what each gradient would.
    mean = jax.tree.map(lambda a, b: (a + b) / 2, halves[0][0].params, halves[1][0].params)
    chex.assert_trees_all_close(new.params, mean, rtol=1e-3, atol=1e-5)
    assert int(new.step) == 1


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(setup):
    step, state, _ = setup
    batch = random_batch(4)
    broken = batch | {"co2_frame": np.full_like(batch["co2_frame"], np.nan)}
    new, metrics = step(state, broken)
    assert float(metrics["skipped"]) == 1
    assert np.isnan(metrics["loss"])
    chex.assert_trees_all_equal(jax.device_get(new).replace(step=state.step), state)
    assert int(new.step) == 1
    assert float(step(state, batch)[1]["skipped"]) == 0


@pytest.mark.slow
def test_the_average_of_the_parameters_forgets_the_start_at_first_and_then_slowly(setup):
    _, start, tx = setup
    abstract = nnx.eval_shape(lambda: create_model("fume", backbone="tiny", rngs=nnx.Rngs(0)))
    step = jit_train_step(abstract, tx, LOSS_FN, seed=0, ema_decay=0.15)
    state, expected = start.replace(ema_params=start.params), start.params
    for i in range(3):
        state, _ = step(state, random_batch(4, i))
        decay = min(0.15, (1 + i) / (10 + i))  # 0.1, then 0.15
        expected = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, expected, jax.device_get(state.params))
    chex.assert_trees_all_close(state.ema_params, expected, rtol=1e-5, atol=1e-7)
    assert state.model["params"] is state.ema_params
    assert start.model["params"] is start.params
