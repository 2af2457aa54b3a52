"""One step: what it changes, what decides it, and that sharding does not matter."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from fume_jax.losses import multi_task_loss
from fume_jax.models import create_model
from fume_jax.sharding import batch_sharding, create_mesh, replicated
from fume_jax.train_step import create_train_state, eval_step, jit_train_step, split_model, train_step
from fume_jax.vocabulary import batch_spec

SIZE = 64


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
    abstract = nnx.eval_shape(lambda: create_model("fume", rngs=nnx.Rngs(0)))
    state = jax.jit(lambda: create_train_state(create_model("fume", rngs=nnx.Rngs(0)), tx))()
    return jit_train_step(abstract, tx, multi_task_loss, seed=0), jax.device_get(state), tx


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
        still = [p for p, m in nnx.to_flat_state(moved) if not m[...] and "attention" not in str(p)]
        assert not still


@pytest.mark.slow
def test_seed_and_step_alone_decide_dropout(setup):
    step, state, tx = setup
    batch = random_batch(4)
    (_, a), (_, b) = step(state, batch), step(state, batch)
    assert float(a["loss"]) == float(b["loss"])
    _, later = step(state.replace(step=np.int32(5)), batch)
    assert float(later["loss"]) != float(a["loss"])
    abstract = nnx.eval_shape(lambda: create_model("fume", rngs=nnx.Rngs(0)))
    _, reseeded = jit_train_step(abstract, tx, multi_task_loss, seed=1)(state, batch)
    assert float(reseeded["loss"]) != float(a["loss"])


@pytest.mark.slow
def test_padding_changes_nothing_but_the_dropout_masks(setup):
    _, state, tx = setup
    model = nnx.eval_shape(lambda: create_model("fume", rngs=nnx.Rngs(0)))
    model.set_attributes(deterministic=True)
    graphdef, _, _ = split_model(model)
    batch = random_batch(3)
    padding = jax.tree.map(lambda x: np.full_like(x[:1], 1), batch) | {"valid": np.zeros(1, bool)}
    padded = jax.tree.map(lambda a, b: np.concatenate([a, b]), batch, padding)
    chex.clear_trace_counter()
    step = jax.jit(lambda s, b: train_step(s, b, graphdef=graphdef, tx=tx, loss_fn=multi_task_loss, seed=0))
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
    abstract = nnx.eval_shape(lambda: create_model("fume", rngs=nnx.Rngs(0)))
    loss_fn = chex.assert_max_traces(multi_task_loss, n=1)
    step = jit_train_step(abstract, tx, loss_fn, seed=0)
    for seed in range(2):
        state, _ = step(state, random_batch(2, seed))


@pytest.mark.slow
def test_evaluation_sums_do_not_depend_on_the_batches_nor_on_padding(setup):
    _, state, _ = setup
    model = nnx.eval_shape(lambda: create_model("fume", rngs=nnx.Rngs(0)))
    model.eval()
    graphdef, _, _ = split_model(model)
    step = jax.jit(lambda b: eval_step(state.params, state.batch_stats, b, graphdef=graphdef, loss_fn=multi_task_loss))
    batch = random_batch(4)
    batch["valid"][3] = False
    together = step(batch)
    singles = [step(jax.tree.map(lambda x, i=i: x[i : i + 1], batch)) for i in range(4)]
    summed = jax.tree.map(lambda *x: jnp.stack(x).sum(0), *singles)
    for name in ("cls_confusion", "co2_confusion", "ch4_confusion", "examples"):
        np.testing.assert_array_equal(together[name], summed[name], err_msg=name)
    assert together["cls_confusion"].sum() == together["examples"] == 3
    assert together["co2_confusion"].sum() == 3 * SIZE**2
    assert together["ch4_confusion"].sum() == 2 * SIZE**2
