"""A comparison has a row for every call that starts, and ratios to the baseline."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import jax_baseline, measure
from benchmarks.report import Report
from benchmarks.suite import Suite
from fume_jax.runtime.errors import UserError


class Product(jax_baseline.Compiled):
    """Stands for the calls of the baselines."""

    def __init__(self, batch, *, backbone=None, fail=False):
        if fail:
            raise MemoryError("too large")
        self._arguments = batch["co2_frame"][..., 0], batch["ch4_frame"][..., 0]
        super().__init__(jax.jit(lambda x, y: jnp.einsum("bhw,bkw->bhk", x, y)), self._arguments, "float32", None)

    def __call__(self):
        return self.compiled(*self._arguments)


@pytest.fixture
def suite(monkeypatch):
    from benchmarks import torch_baseline

    monkeypatch.setattr(measure, "PAUSE_SECONDS", 0)
    for module in (jax_baseline, torch_baseline):
        monkeypatch.setattr(module, "Inference", Product)
    return Suite(Report(), True, {"JAX": {}}, {"PyTorch": {}})


def test_calls_are_compared_with_pytorch_and_with_their_rooflines(suite):
    suite.compare("Inference", batch_size=8)
    rows = {row["call"]: row for row in suite.report.results["Inference"]}
    assert rows["PyTorch"]["time_ratio"] == 1
    assert rows["JAX"]["time_ratio"] == pytest.approx(rows["JAX"]["ms"] / rows["PyTorch"]["ms"])
    for row in rows.values():
        assert row["batch"] == 2 and row["pairs_per_second"] == pytest.approx(2e3 / row["ms"])
        assert row["first_call_seconds"] > 0 and row["device_mb"] > 0
    assert all(row["gflop"] == pytest.approx(4 * 96 * 96 * 128 / 1e9) for row in suite.report.results["roofline"])


def test_what_does_not_start_is_left_out_and_the_rest_is_measured(suite):
    suite.torch_variants["PyTorch"]["fail"] = True
    suite.compare("Inference", batch_size=1)
    assert [(row["call"], row["time_ratio"]) for row in suite.report.results["Inference"]] == [("JAX", None)]
    (left_out,) = suite.report.results["left out"]
    assert "PyTorch" in left_out["name"] and "too large" in left_out["reason"]


def test_comparisons_and_parts_are_named(suite, monkeypatch):
    from benchmarks import suite as module

    measured = []
    parts = {"one": lambda suite: measured.append("one"), "two": lambda suite: measured.append("two")}
    monkeypatch.setattr(module, "_ONLY", type("Flag", (), {"value": ["Inference-1", "two"]}))
    suite.run(parts, [("Inference", 1)])
    assert measured == ["two"] and len(suite.report.results["Inference"]) == 2
    monkeypatch.setattr(module, "_ONLY", type("Flag", (), {"value": ["speed"]}))
    with pytest.raises(UserError, match=r"speed.*Inference-1, one, two"):
        suite.run(parts, [("Inference", 1)])
