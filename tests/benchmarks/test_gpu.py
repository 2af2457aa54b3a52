"""The benchmark for accelerators runs on an image with little else than JAX."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import gpu, jax_baseline
from benchmarks.report import Report
from benchmarks.suite import Suite
from fume_jax.runtime.errors import PARTLY_DONE
from fume_jax.schema import IGNORE, MASK_CLASSES, batch_spec
from tests.commands import ROOT, environment

# A model that compiles in seconds.
SMALL = {"name": "classification_only", "backbone": "tiny"}
# Packages that such an image may lack.
MISSING = ["grain", "tensorflow_datasets", "ml_collections", "orbax", "cv2", "tensorboardX"]
MISSING += ["psutil", "filelock", "torch"]
WITHOUT = f"""
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
import tests.tiny
from benchmarks.jax_baseline import RECIPE
RECIPE["model"] |= {SMALL}
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_without_other_packages_it_measures_and_leaves_pytorch_out(tmp_path):
    arguments = ["benchmarks.gpu", "--quick", "--only=golden values,Inference-1", f"--output={tmp_path}"]
    command = [sys.executable, "-c", WITHOUT, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert result.returncode == PARTLY_DONE, result.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert len(found["golden values"]) == 9
    assert all(row["largest_difference"] < row["allowed"] for row in found["golden values"])
    assert [row["call"] for row in found["Inference"]] == ["JAX, bfloat16"]
    (left_out,) = found["left out"]
    assert left_out["name"] == "torch" and "No module named 'torch'" in left_out["reason"]


def test_an_epoch_trains_on_augmented_batches_of_the_device_cache(monkeypatch, standard_promotion):
    batches, losses = [], []

    class RecordedStep(jax_baseline.TrainingStep):
        def __call__(self, batch):
            metrics = super().__call__(batch)
            losses.append(float(metrics["loss"]))
            batches.append(jax.device_get(batch))
            return metrics

    monkeypatch.setitem(jax_baseline.RECIPE, "model", SMALL)
    monkeypatch.setattr(jax_baseline, "TrainingStep", RecordedStep)
    suite = Suite(Report(), True, {}, {})
    gpu.epoch(suite)
    (row,) = suite.report.results["epoch"]
    assert row["seconds"] == pytest.approx(16 / row["pairs_per_second"])
    assert len(batches) == gpu.WARM_UP + 8
    assert np.isfinite(losses).all() and len({*losses}) == len(losses)
    for batch in batches:
        assert {key: x.shape for key, x in batch.items()} == {k: x.shape for k, x in batch_spec(2, 96, 128).items()}
        assert batch["valid"].all() and np.isin(batch["co2_mask"], (*range(len(MASK_CLASSES)), IGNORE)).all()
    assert not np.array_equal(batches[0]["co2_frame"], batches[1]["co2_frame"])
