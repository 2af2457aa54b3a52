"""Benchmarks run, say what they found, and count rightly what is known by hand."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from benchmarks import ours, peer, timing
from benchmarks.account import Ceilings, Work, account, work_of
from benchmarks.report import Report
from benchmarks.timing import Timing, alternate
from configs import fume
from tests.commands import ROOT, environment

# Threads of PyTorch wait for one another, which takes long where tests run side by side.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# What a bare image with an accelerator may lack.
EXTRAS = (
    "grain",
    "tensorflow_datasets",
    "ml_collections",
    "orbax",
    "cv2",
    "tensorboardX",
    "psutil",
    "filelock",
    "torch",
)
WITHOUT = f"""
import runpy, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def test_work_of_a_matrix_product_is_counted_as_by_hand():
    compiled = jax.jit(jnp.matmul).lower(jnp.ones((512, 256)), jnp.ones((256, 128))).compile()
    work = work_of(compiled)
    assert work.flops == 2 * 512 * 256 * 128
    assert work.memory_bytes == pytest.approx(4 * (512 * 256 + 256 * 128 + 512 * 128), rel=0.2)


@pytest.mark.parametrize("work, bound, fraction", [(Work(100, 50), "flops", 0.5), (Work(20, 200), "bytes", 0.4)])
def test_the_account_by_hand(work, bound, fraction):
    found = account(work, Ceilings(flops=10, bandwidth=25), seconds=20)
    assert found["ms_by_flops"] == 1e3 * work.flops / 10
    assert found["ms_by_bytes"] == 1e3 * work.memory_bytes / 25
    assert (found["bound_by"], found["fraction_of_ceiling"]) == (bound, fraction)


def test_the_peer_computes_our_loss_whatever_is_present():
    batch = ours.random_batch(4, 16, 24)
    batch["modality_mask"] = np.array([[1, 1], [1, 0], [1, 0], [1, 1]], np.float32)
    batch["valid"] = np.array([True, True, True, False])
    rng = np.random.default_rng(1)
    outputs = {"cls_logits": rng.normal(size=(4, 3)).astype(np.float32)}
    for gas in ("co2", "ch4"):
        outputs[f"{gas}_seg_logits"] = 3 * rng.normal(size=(4, 16, 24, 3)).astype(np.float32)
    for present in (batch["modality_mask"], np.ones((4, 2), np.float32), np.eye(2, dtype=np.float32)[[0] * 4]):
        batch["modality_mask"] = present
        expected = ours.loss_fn(outputs, batch)["loss"]
        theirs = {k: torch.tensor(x if x.ndim == 2 else x.transpose(0, 3, 1, 2)) for k, x in outputs.items()}
        loss = peer.multi_task_loss(theirs, peer.torch_batch(batch))
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_what_is_measured_is_augmented_as_the_published_config_says():
    assert create_augmentation(fume.get_config()) == ours.AUGMENTATION


def test_calls_take_turns_and_what_runs_long_runs_less_often(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE_SECONDS", 0)
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    timings = alternate(calls, repeats=20)
    assert order == ["a", "b"] * (timing.WARM_UP + 20)
    assert [t.runs for t in timings.values()] == [20, 20]
    monkeypatch.setattr(timing, "LONG_SECONDS", -1)
    assert {t.runs for t in alternate(calls, repeats=20).values()} == {5}
    assert {t.runs for t in alternate(calls, repeats=4).values()} == {3}


def test_a_report_is_on_disk_row_by_row_and_outlives_what_fails(tmp_path, capsys):
    report = Report(str(tmp_path), device="by hand")
    timings = {"eager": Timing(0.2, 10), "ours": Timing(0.05, 10)}
    report.compare("training", timings, 8, to="eager")
    with report.attempt("the rest"):
        raise ValueError("no memory")
    found = json.loads((tmp_path / "results.json").read_text())
    assert [row["speed"] for row in found["results"]["training"]] == [1, 4]
    assert [row["pairs_per_second"] for row in found["results"]["training"]] == [40, 160]
    assert found["left_out"] == ["the rest: ValueError: no memory"] and report.failed
    report.add("training", batch=2, note="of another kind")
    report.finish()
    markdown = (tmp_path / "results.md").read_text()
    assert "| 8 | ours | 50 | 160 | 10 | 4 | eager |  |" in markdown
    assert "| 2 |  |  |  |  |  |  | of another kind |" in markdown
    assert markdown.strip() in capsys.readouterr().out


def suite(*arguments, prefix=()):
    command = [sys.executable, *prefix, *arguments, "--quick"]
    settings = environment() | ONE_THREAD
    return subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_the_suite_for_cpu_writes_what_it_found(tmp_path):
    arguments = ["-m", "benchmarks.run", "--suite=cpu", "--only=inference,input", "--peers=", "--repeats=1"]
    result = suite(*arguments, f"--output={tmp_path}", "--profile")
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert {"cpu", "cores", "jax", "torch", "threads_of_pytorch", "load_at_the_end"} <= set(found["environment"])
    rows = {row["implementation"]: row for row in found["results"]["inference"]}
    assert {"JAX", "PyTorch, eager", "ONNX Runtime", "JAX, host to host"} <= set(rows)
    assert rows["PyTorch, eager"]["speed"] == 1 and all(row["ms"] > 0 for row in rows.values())
    (accounted,) = found["results"]["account"]
    assert accounted["fraction_of_ceiling"] > 0 and accounted["gflop"] > 0.1
    assert found["results"]["input"][0]["pairs_per_second"] > 0
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert not found["left_out"]


def test_the_suite_names_its_parts_to_who_asks_for_another():
    result = suite("-m", "benchmarks.run", "--suite=cpu", "--only=speed")
    assert result.returncode == 1
    assert "speed" in result.stderr and "training" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_accelerator_benchmark_runs_on_a_bare_image_and_says_that_pytorch_is_not_there(tmp_path):
    arguments = ["benchmarks.gpu", "--only=golden values,inference,depthwise layers,dispatch,resident epoch"]
    result = suite(*arguments, f"--output={tmp_path}", prefix=["-c", WITHOUT])
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["left_out"] == ["PyTorch: No module named 'torch'"]
    assert found["results"]["golden values"][0]["largest_difference"] < 1e-4
    assert [row["implementation"] for row in found["results"]["inference"]] == ["JAX, float32"]
    assert found["results"]["resident epoch"][0]["pairs_per_second"] > 0
    assert {row["lowering"] for row in found["results"]["depthwise layers"]} >= {"library", "shifted"}
    assert {row["state"] for row in found["results"]["dispatch"]} == {"dicts", "flat leaves"}
