"""Learning rates and updates, by hand and against the papers' formulas."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fume_jax.learning.optimizer import create_optimizer, create_schedule

pytestmark = pytest.mark.usefixtures("standard_promotion")
COMMON = {"learning_rate": 0.1, "final_learning_rate": 0.001, "total_steps": 100}


def rates(name, steps, warmup_steps=0, **options):
    schedule = create_schedule(name, **COMMON, warmup_steps=warmup_steps, **options)
    return [float(schedule(step)) for step in steps]


@pytest.mark.parametrize("name", ["cosine", "step", "constant"])
def test_every_schedule_warms_up_linearly_from_nothing(name):
    assert rates(name, [0, 5, 10], warmup_steps=10, decay_steps=(50,)) == pytest.approx([0, 0.05, 0.1])


def test_the_cosine_is_halfway_in_the_middle_and_ends_where_it_should():
    assert rates("cosine", [0, 50, 100]) == pytest.approx([0.1, 0.0505, 0.001])
    assert rates("cosine", [20, 60, 100], warmup_steps=20) == pytest.approx([0.1, 0.0505, 0.001])


def test_steps_are_counted_from_the_start_of_the_run():
    options = {"decay_steps": (30, 60), "decay_factor": 0.5}
    assert rates("step", [29, 31, 61], **options) == pytest.approx([0.1, 0.05, 0.025])
    assert rates("step", [29, 31, 61], warmup_steps=10, **options) == pytest.approx([0.1, 0.05, 0.025])


def test_a_constant_rate_stays():
    assert rates("constant", [0, 99]) == pytest.approx([0.1, 0.1])


def first_update(name, gradient, **changed):
    options = {"weight_decay": 0.0, "b1": 0.9, "b2": 0.999, "clip_norm": 1e9} | changed
    tx = create_optimizer(name, optax.constant_schedule(0.1), **options)
    params = jnp.array([2.0, -1.0])
    return np.asarray(tx.update(jnp.array(gradient), tx.init(params), params)[0])


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_starts_with_the_sign_of_the_gradient(name):
    np.testing.assert_allclose(first_update(name, [0.3, -4.0]), [-0.1, 0.1], rtol=1e-4)


def test_sgd_follows_the_gradient_with_nesterov_momentum_or_without():
    np.testing.assert_allclose(first_update("sgd", [0.3, -4.0], b1=0.0), [-0.03, 0.4], rtol=1e-6)
    np.testing.assert_allclose(first_update("sgd", [0.3, -4.0]), [-0.03 * 1.9, 0.4 * 1.9], rtol=1e-6)


def test_decay_shrinks_parameters_and_in_sgd_is_part_of_the_gradient():
    np.testing.assert_allclose(first_update("adamw", [0.0, 0.0], weight_decay=0.01), [-0.002, 0.001], rtol=1e-6)
    np.testing.assert_allclose(first_update("sgd", [0.0, 0.0], b1=0.0, weight_decay=0.01), [-0.002, 0.001], rtol=1e-6)
    np.testing.assert_allclose(first_update("adam", [0.0, 0.0], weight_decay=0.01), [-0.1, 0.1], rtol=1e-4)


def test_the_gradient_is_clipped_to_its_norm():
    np.testing.assert_allclose(first_update("sgd", [3.0, -4.0], b1=0.0, clip_norm=1.0), [-0.06, 0.08], rtol=1e-6)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="Expected a schedule of cosine, step, constant, got 'linear'"):
        rates("linear", [0])
    with pytest.raises(ValueError, match="Expected an optimizer of adamw, adam, sgd, got 'lion'"):
        first_update("lion", [0.0, 0.0])
