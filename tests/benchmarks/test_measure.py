"""Rooflines and rates are counted right where they are known by hand, and calls take turns."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import measure
from benchmarks.measure import Work, alternate, count_work, measure_peak_rates, roofline


def test_work_of_a_matrix_product_is_counted_as_by_hand():
    lowered = jax.jit(jnp.matmul).lower(jnp.ones((512, 256)), jnp.ones((256, 128)))
    work = count_work(lowered.compile(), lowered)
    assert work.flops == 2 * 512 * 256 * 128
    assert work.memory_bytes == pytest.approx(4 * (512 * 256 + 256 * 128 + 512 * 128), rel=0.2)


class Uncounted:
    def cost_analysis(self):
        return None


def test_what_a_compiler_does_not_count_is_left_out():
    lowered = jax.jit(jnp.matmul).lower(jnp.ones((512, 256)), jnp.ones((256, 128)))
    assert count_work(lowered.compile(), Uncounted()).flops == 2 * 512 * 256 * 128


@pytest.mark.parametrize("work, bound_by, bound_ms", [(Work(100, 50), "flops", 10e3), (Work(20, 200), "bytes", 8e3)])
def test_a_roofline_by_hand(work, bound_by, bound_ms):
    found = roofline(work, Work(10, 25), seconds=20)
    assert (found["bound_by"], found["bound_ms"], found["fraction_of_bound"]) == (bound_by, bound_ms, bound_ms / 20e3)


def test_calls_take_turns_after_some_that_are_not_counted(monkeypatch):
    monkeypatch.setattr(measure, "PAUSE_SECONDS", 0)
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    assert set(alternate(calls, repeats=4, steps=2)) == {"a", "b"}
    assert order == ["a", "b"] * measure.WARM_UP + ["a", "a", "b", "b"] * 4


def test_peak_rates_are_measured(monkeypatch):
    monkeypatch.setattr(measure, "PAUSE_SECONDS", 0)
    assert all(1e6 < rate < 1e18 for rate in measure_peak_rates("float32", 64))
