"""One step: what it changes, what decides it, and that sharding does not matter."""

import functools

import chex
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from configs.fume import get_config
from fume_jax.config import create_example_losses, create_loss_fn
from fume_jax.learning.step import (
    create_train_state,
    eval_step,
    flatten_state,
    flip_step,
    jit_train_step,
    name_state,
    predict_step,
    split_model,
    train_step,
)
from fume_jax.models import create_model
from fume_jax.runtime.mesh import batch_sharding, create_mesh, replicated
from fume_jax.schema import batch_spec

pytestmark = pytest.mark.usefixtures("standard_promotion")
SIZE = 64
LOSS_FN, EXAMPLE_LOSSES = create_loss_fn(get_config()), create_example_losses(get_config())


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


# Adam blows up rounding where the true gradient is 0.
TX = optax.sgd(0.05)
# Where it divides by more than rounding.
ADAM = optax.adam(1e-3, eps=1e-2)


def fume():
    return create_model("fume", backbone="tiny", rngs=nnx.Rngs(0))


def multi_task():
    """Compiles in half the time, for steps that only one test takes."""
    return create_model("multi_task", gas="both", backbone="tiny", rngs=nnx.Rngs(0))


def initial_state(create):
    return jax.device_get(jax.jit(lambda: create_train_state(create(), TX))())


def deterministic_step(create, **options):
    """A step without dropout."""
    model = nnx.eval_shape(create)
    model.set_attributes(deterministic=True)
    options |= {"graphdef": split_model(model)[0], "tx": TX, "loss_fn": LOSS_FN, "seed": 0}
    return jax.jit(lambda state, batch: train_step(state, batch, **options))


@pytest.fixture(scope="module")
def setup():
    """Compiled step and initial state."""
    return jit_train_step(nnx.eval_shape(fume), TX, LOSS_FN, seed=0), initial_state(fume)


@pytest.fixture(scope="module")
def start():
    return initial_state(multi_task)


@pytest.mark.slow
def test_steps_lower_the_loss_and_move_parameters_and_statistics(setup):
    step, state = setup
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
    step, state = setup
    batch = random_batch(4)
    (_, a), (_, b) = step(state, batch), step(state, batch)
    assert float(a["loss"]) == float(b["loss"])
    _, later = step(state.replace(step=np.int32(5)), batch)
    assert float(later["loss"]) != float(a["loss"])


@pytest.mark.slow
def test_the_seed_decides_dropout_and_a_second_batch_of_one_shape_does_not_trace_again(start):
    batch, losses = random_batch(2), []
    for seed in range(2):
        chex.clear_trace_counter()
        loss_fn = chex.assert_max_traces(lambda outputs, batch: LOSS_FN(outputs, batch), n=1)
        step = jit_train_step(nnx.eval_shape(multi_task), TX, loss_fn, seed=seed)
        state, metrics = step(start, batch)
        step(state, random_batch(2, seed=1))
        losses.append(float(metrics["loss"]))
    assert losses[0] != losses[1]


@pytest.mark.slow
def test_padding_changes_nothing_but_the_dropout_masks(start):
    batch = random_batch(3)
    padding = jax.tree.map(lambda x: np.full_like(x[:1], 1), batch) | {"valid": np.zeros(1, bool)}
    padded = jax.tree.map(lambda a, b: np.concatenate([a, b]), batch, padding)
    step = deterministic_step(multi_task)
    (a, a_metrics), (b, b_metrics) = step(start, batch), step(start, padded)
    chex.assert_trees_all_close(a_metrics, b_metrics, rtol=1e-4)
    chex.assert_trees_all_close(a.batch_stats, b.batch_stats, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_eight_devices_take_the_same_step_as_one(setup):
    step, state = setup
    mesh, batch = create_mesh(), random_batch(16)
    _, expected = step(state, batch)
    sharded = jax.device_put(batch, batch_sharding(mesh))
    assert len(sharded["co2_frame"].sharding.device_set) == 8
    _, metrics = step(jax.device_put(state, replicated(mesh)), sharded)
    # Rounding flips the sign of a few activations near 0, which the gradient sees and the loss does not.
    np.testing.assert_allclose(metrics.pop("grad_norm"), expected.pop("grad_norm"), rtol=1e-3)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-5)


@pytest.fixture(scope="module")
def evaluate(setup):
    """Compiled evaluation of a batch with the initial state."""
    _, state = setup
    model = nnx.eval_shape(fume)
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
    _, state = setup
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
def test_a_batch_in_parts_gives_the_mean_gradient_and_loss_of_the_parts(start):
    step, in_parts = deterministic_step(multi_task), deterministic_step(multi_task, accumulation_steps=2)
    batch = random_batch(4)
    halves = [step(start, jax.tree.map(lambda x, i=i: x[i::2], batch)) for i in range(2)]
    new, metrics = in_parts(start, batch)
    for name in ("loss", "cls_loss", "co2_seg_loss"):
        assert float(metrics[name]) == pytest.approx(np.mean([float(m[name]) for _, m in halves]), rel=1e-4)
    # Plain descent: the mean gradient moves the parameters by the mean of what each gradient would.
    mean = jax.tree.map(lambda a, b: (a + b) / 2, halves[0][0].params, halves[1][0].params)
    chex.assert_trees_all_close(new.params, mean, rtol=1e-3, atol=1e-5)
    assert int(new.step) == 1


@pytest.mark.slow
def test_a_step_that_is_not_finite_changes_nothing_but_its_number(setup):
    step, state = setup
    batch = random_batch(4)
    broken = batch | {"co2_frame": np.full_like(batch["co2_frame"], np.nan)}
    new, metrics = step(state, broken)
    assert float(metrics["skipped"]) == 1
    assert np.isnan(metrics["loss"])
    chex.assert_trees_all_equal(jax.device_get(new).replace(step=state.step), state)
    assert int(new.step) == 1
    assert float(step(state, batch)[1]["skipped"]) == 0


@pytest.mark.slow
def test_the_average_of_the_parameters_forgets_the_start_at_first_and_then_slowly(start):
    step = jit_train_step(nnx.eval_shape(multi_task), TX, LOSS_FN, seed=0, ema_decay=0.15)
    state, expected = start.replace(ema_params=start.params), start.params
    for i in range(3):
        state, _ = step(state, random_batch(4, i))
        decay = min(0.15, (1 + i) / (10 + i))  # 0.1, then 0.15
        expected = jax.tree.map(lambda e, p, d=decay: d * e + (1 - d) * p, expected, jax.device_get(state.params))
    chex.assert_trees_all_close(state.ema_params, expected, rtol=1e-5, atol=1e-7)
    assert state.model["params"] is state.ema_params
    assert start.model["params"] is start.params


@pytest.mark.slow
def test_a_flat_state_takes_the_same_steps_as_one_by_name(start):
    step = jit_train_step(nnx.eval_shape(multi_task), ADAM, LOSS_FN, seed=0, ema_decay=0.5)
    by_name = jax.device_get(start.replace(opt_state=ADAM.init(start.params), ema_params=start.params))
    flat = flatten_state(by_name)
    chex.assert_trees_all_equal(jax.device_get(name_state(flat)), by_name)
    # Step, count, parameters, both moments, average and statistics.
    assert len(jax.tree.leaves(flat)) == 7
    for i in range(2):
        (by_name, expected), (flat, metrics) = step(by_name, random_batch(2, i)), step(flat, random_batch(2, i))
        chex.assert_trees_all_close(metrics, expected, rtol=1e-5)
    chex.assert_trees_all_close(name_state(flat), by_name, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(flat.ema_params.vector, flat.params.vector)
    broken = random_batch(2)
    broken["co2_frame"] = np.full_like(broken["co2_frame"], np.nan)
    before = jax.tree.map(np.array, flat)
    after, metrics = step(flat, broken)
    assert float(metrics["skipped"]) == 1
    chex.assert_trees_all_equal(jax.device_get(after).replace(step=before.step), before)
