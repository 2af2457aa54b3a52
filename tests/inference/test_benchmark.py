"""Formats are timed in turns; what cannot be run here is left out, and said."""

import sys

import pytest

from fume_jax.inference import benchmark as module
from fume_jax.inference.benchmark import BATCH, benchmark, time_in_turns
from fume_jax.inference.jax_backends import WeightsBackend
from fume_jax.runtime.errors import PARTLY_DONE
from tests.commands import assert_refused, run
from tests.inference.small_onnx import write_onnx
from tests.inference.test_backends import card_and_model
from tests.inference.test_predictor import CARD, Known


def test_all_take_turns_and_the_first_call_does_not_count(monkeypatch):
    clock, calls = iter(range(1000)), []

    class Slow(Known):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def __call__(self, **inputs):
            calls.append((self.name, len(inputs["modality_mask"])))
            if self.name == "b" or len(calls) <= 4:
                next(clock)

    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    found = time_in_turns({"a": Slow("a"), "b": Slow("b")}, turns=3)
    assert calls == 4 * [("a", 1), ("a", BATCH), ("b", 1), ("b", BATCH)]
    assert found == {("a", 1): 1, ("a", BATCH): 1, ("b", 1): 2, ("b", BATCH): 2}


@pytest.mark.slow
def test_formats_of_a_run_and_other_files_are_compared(tmp_path, tiny_dataset, monkeypatch, capsys):
    card, model = card_and_model("segmentation_only")
    WeightsBackend.write(tmp_path / "run", model, card)
    file = write_onnx(tmp_path / "small.onnx", CARD)
    monkeypatch.setitem(sys.modules, "openvino", None)
    code = benchmark(tmp_path / "run", ["jax", "torch", "openvino"], [file], data=str(tiny_dataset), turns=1)
    out = capsys.readouterr().out
    assert code == PARTLY_DONE and "left out: openvino: Writing OpenVINO files needs openvino" in out
    rows = {
        line.split()[0]: line.split() for line in out.splitlines() if line.split()[0] in ("jax", "torch", str(file))
    }
    assert len(rows["jax"]) == 4 and len(rows["torch"]) == len(rows[str(file)]) == 5
    assert rows["jax"][-1] == rows["torch"][-1]  # they find the same gas
    assert "pairs of the test split" in out


def test_a_format_that_there_is_not_is_refused():
    assert_refused(run("fume_jax.commands.benchmark", "--formats=onnx,tflite"), "--formats=tflite", "onnx-int8")
