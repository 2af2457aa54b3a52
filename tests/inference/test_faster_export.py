"""The ONNX file in a run folder predicts instead of JAX on a CPU, as long as it is exactly the run."""

import dataclasses
import json
import os
from importlib.metadata import entry_points

import onnx
import pytest

from fume_jax.inference import backends
from fume_jax.inference.backends import faster_export
from fume_jax.inference.formats import PRETRAINED
from tests.commands import assert_refused, run
from tests.inference.small_onnx import write_onnx
from tests.inference.test_predictor import CARD

METRICS = {"step": 1, "val/iou_gas": 0.5, "val/hd95": float("nan"), "val/temperature": 1.5}


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """A run that was trained, scored, exported to ONNX, and scored on the test split since, where JAX has a CPU."""
    monkeypatch.setattr(backends.importlib.metadata, "entry_points", lambda group: [])
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS | {"test/iou_gas": 0.4}))
    write_onnx(tmp_path / "model.onnx", dataclasses.replace(CARD, metrics=METRICS))
    os.utime(tmp_path / "checkpoints" / "1", (1, 1))
    return tmp_path


def test_the_export_of_a_run_predicts(workdir):
    path, told = faster_export(workdir)
    assert path == workdir / "model.onnx"
    assert told.startswith(f"{path} predicts") and "--backend=jax" in told


@pytest.mark.skipif(bool(entry_points(group="jax_plugins")), reason="JAX may have an accelerator")
def test_the_command_takes_it_unless_a_backend_is_named(workdir, tmp_path):
    arguments = ["--workdir", workdir, "--co2", PRETRAINED / "examples", "--output", tmp_path / "predictions"]
    found = run("fume_jax.predict", *arguments)
    assert found.returncode == 0 and f"{workdir / 'model.onnx'} predicts" in found.stdout, found.stderr
    # The folder has nothing that JAX could run.
    assert_refused(run("fume_jax.predict", *arguments, "--backend=jax"), "not a run folder")


def _trained_on(folder):
    (folder / "checkpoints" / "2").mkdir()
    os.utime(folder / "model.onnx", (2, 2))


def _scored_otherwise(folder):
    (folder / "metrics.json").write_text(json.dumps(METRICS | {"val/iou_gas": 0.6}))


def _not_scored(folder):
    (folder / "metrics.json").unlink()


def _favours_gas(folder):
    write_onnx(folder / "model.onnx", dataclasses.replace(CARD, metrics={"step": 1, "val/temperature": 1.5}))


def _in_8_bits(folder):
    model = onnx.load(folder / "model.onnx")
    model.graph.doc_string = "QuantizeLinear"
    onnx.save(model, folder / "model.onnx")


def _damaged(folder):
    (folder / "model.onnx").write_bytes(b"no model")


def _not_a_run(folder):
    (folder / "checkpoints" / "1").rmdir()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_trained_on, "is older than the last training"),
        (_scored_otherwise, "has other scores than the run"),
        (_not_scored, "lies in a run without scores"),
        (_favours_gas, "has no scores: it was exported before the run was scored, or with --gas_bias or --gas_margin"),
        (_in_8_bits, "computes in 8 bits"),
        (_damaged, "cannot be read"),
        (_not_a_run, "lies in a folder without checkpoints"),
    ],
)
def test_any_other_file_is_left_and_the_reason_said(workdir, change, reason):
    change(workdir)
    path, told = faster_export(workdir)
    assert path is None and told.startswith(f"JAX predicts, since {workdir / 'model.onnx'} {reason}")


def test_nothing_is_told_where_there_is_no_choice(workdir, monkeypatch):
    with monkeypatch.context() as accelerated:
        accelerated.setattr(backends.importlib.metadata, "entry_points", lambda group: [group])
        assert faster_export(workdir) == (None, "")
    with monkeypatch.context() as light:
        light.setattr(backends, "find_spec", lambda name: None)
        assert faster_export(workdir) == (None, "")
    (workdir / "model.onnx").unlink()
    assert faster_export(workdir) == (None, "")
