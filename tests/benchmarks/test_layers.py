"""Kernels are timed by the profiler."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import jax_baseline, layers
from benchmarks.kernels import kernels
from benchmarks.report import Report


def test_the_slow_kernel_has_the_time():
    matrix, vector = jnp.ones((1500, 1500)), jnp.ones(8)
    call = jax.jit(lambda a, b: (a @ a, jnp.exp(b))).lower(matrix, vector).compile()
    found = {x.operation: x.name for x in kernels(call.as_text())}
    seconds = layers.kernel_seconds(lambda: call(matrix, vector), 2)
    assert seconds[found["dot_general"]] > 10 * seconds[found["exp"]] > 0


@pytest.mark.slow
def test_every_table_adds_up():
    report = Report()
    layers.measure(report, jax_baseline.Inference(jax_baseline.random_batch(1, 64, 64)), 64, calls=2, top=1000)
    whole, *operations = report.results["operations"]
    (program,) = report.results["program"]
    for key in ("kernels", "ms", "bound_ms", "gflop", "mbyte"):
        assert sum(row[key] for row in operations) == pytest.approx(whole[key], rel=1e-6)
        if key != "kernels":
            assert sum(row[key] for row in report.results["kernels"]) == pytest.approx(whole[key], rel=1e-6)
    assert len(report.results["kernels"]) == whole["kernels"] == program["kernels"]
    assert min(program["ms"], program["cores_busy"], whole["gflop"]) > 0
