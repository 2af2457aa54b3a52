"""What the loop remembers: means, skipped updates, early stopping; all of it through JSON and back."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from fume_jax.runtime.errors import UserError
from fume_jax.training.loop_state import EarlyStopping, LoopState

BATCH = {"example_index": jnp.array([3, 14, 15])}


def progress(max_skipped=0, **stopping):
    return LoopState(
        EarlyStopping(**{"metric": "m", "mode": "max", "patience": 2, "min_delta": 0.0} | stopping), max_skipped
    )


def metrics(loss, skipped=0.0):
    return {"loss": jnp.float32(loss), "grad_norm": jnp.float32(2.0), "skipped": jnp.float32(skipped)}


def stops_after(scores, **stopping):
    """How many evaluations it takes, None if they are too few."""
    stopper = progress(**stopping).early_stopping
    for i, value in enumerate(scores, start=1):
        stopper.update({"m": value})
        if stopper.due:
            return i
    return None


def test_means_are_of_the_steps_since_they_were_last_asked_for():
    p = progress()
    for step, loss in enumerate([1.0, 2.0, 6.0], start=1):
        p.add(step, metrics(loss), BATCH)
        if step == 2:
            assert p.mean() == {"loss": 1.5, "grad_norm": 2.0, "skipped": 0.0}
    assert p.mean()["loss"] == 6.0


def test_a_step_that_is_not_finite_ends_the_run_with_its_terms_and_examples():
    p = progress()
    p.add(7, metrics(math.nan, skipped=1.0), BATCH)  # known only once the next step is on its way
    with pytest.raises(UserError, match=r"not finite at step 7: grad_norm 2, loss nan.*examples 3, 14, 15"):
        p.add(8, metrics(1.0), BATCH)


@pytest.mark.parametrize("ask", [LoopState.mean, LoopState.to_json])
def test_the_newest_step_is_looked_at_before_anything_is_told_or_saved(ask):
    p = progress()
    p.add(7, metrics(math.inf, skipped=1.0), BATCH)
    with pytest.raises(UserError, match="not finite at step 7"):
        ask(p)


def test_so_many_updates_may_be_skipped_and_are_no_part_of_the_means():
    p = progress(max_skipped=2)
    for step, (loss, skipped) in enumerate([(1.0, 0), (math.nan, 1), (3.0, 0), (math.nan, 1)], start=1):
        p.add(step, metrics(loss, skipped), BATCH)
    assert p.mean() == {"loss": 2.0, "grad_norm": 2.0, "skipped": 2.0}
    p.add(5, metrics(math.nan, 1), BATCH)
    with pytest.raises(UserError, match="not finite at step 5, after 2 skipped updates"):
        p.mean()


@pytest.mark.parametrize(
    "scores, options, expected",
    [
        ([0.1, 0.2, 0.2, 0.2], {}, 4),
        ([0.1, 0.2, 0.1, 0.3, 0.3, 0.2], {}, 6),
        ([0.1, 0.2, 0.2, 0.2], {"patience": 0}, None),
        ([0.3, 0.2, 0.2, 0.1, 0.1, 0.1], {"mode": "min"}, 6),
        ([0.10, 0.15, 0.19, 0.3], {"min_delta": 0.1}, 3),
        ([0.1, math.nan, math.nan], {}, 3),
        ([math.nan, 0.1, 0.2], {"patience": 2}, None),
    ],
)
def test_a_run_ends_after_so_many_evaluations_without_gain(scores, options, expected):
    assert stops_after(scores, **options) == expected


def test_everything_survives_json_to_the_last_bit():
    p, q = progress(max_skipped=9), progress(max_skipped=9)
    values = np.random.default_rng(0).normal(size=20).astype(np.float32)
    for step, value in enumerate(values, start=1):
        p.add(step, metrics(value, skipped=float(step == 4)), BATCH)
    p.early_stopping.update({"m": 1 / 3})
    p.early_stopping.update({"m": 0.1})
    q.restore(json.loads(json.dumps(p.to_json())))
    assert q.to_json() == p.to_json()
    assert q.mean() == p.mean()
    assert (q.skipped, q.early_stopping) == (1, p.early_stopping)
