"""PyTorch checkpoint files become runs and runs such files, by command; a hostile file does nothing."""

import csv
import json
import os
import zipfile

import cv2
import numpy as np
import pytest
import torch

from fume_jax.inference import importer
from fume_jax.runtime.errors import UserError
from tests import golden
from tests.commands import run

SMALL = ["--config=demo", "--config.data.height=64", "--config.data.width=80"]


def tensors(name):
    return {key: torch.tensor(value) for key, value in golden.state_dict(name).items()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A run made of a checkpoint as training in PyTorch saves it."""
    folder = tmp_path_factory.mktemp("converted")
    torch.save({"epoch": 7, "model_state_dict": tensors("fume"), "best_score": 0.9}, folder / "best_model.pth")
    arguments = ["--from-torch", folder / "best_model.pth", "--model=fume", f"--workdir={folder / 'run'}"]
    result = run("fume_jax.convert", *arguments, *SMALL, "--config.eval.batch_size=8")
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_a_checkpoint_comes_back_as_it_was(converted, tmp_path):
    back = tmp_path / "new" / "back.pth"
    result = run("fume_jax.export", "--format=torch", f"--output={back}", f"--workdir={converted}")
    assert result.returncode == 0, result.stderr
    assert_equal(torch.load(back, weights_only=True)["model_state_dict"], tensors("fume"))


@pytest.mark.slow
def test_what_was_converted_evaluates_and_predicts(converted, tiny_dataset, tmp_path):
    result = run("fume_jax.evaluate", f"--workdir={converted}", f"--data={tiny_dataset}", "--split=val")
    assert result.returncode == 0, result.stderr
    assert "step 0 of" in result.stdout
    frame = np.random.default_rng(0).integers(0, 256, (96, 128), np.uint8)
    cv2.imwrite(str(tmp_path / "frame.png"), frame)
    result = run(
        "fume_jax.predict", f"--workdir={converted}", f"--co2={tmp_path / 'frame.png'}", f"--output={tmp_path}"
    )
    assert result.returncode == 0, result.stderr
    assert "class,abstain,Healthy" in (tmp_path / "predictions.csv").read_text()


@pytest.mark.slow
def test_nothing_is_said_of_a_frame_that_the_model_does_not_read(tmp_path):
    torch.save(tensors("multi_task"), tmp_path / "bare.pth")
    made = run(
        "fume_jax.convert", "--from-torch", tmp_path / "bare.pth", "--model=multi_task", f"--workdir={tmp_path / 'run'}"
    )
    assert made.returncode == 0, made.stderr
    for gas in ("co2", "ch4"):
        (tmp_path / gas).mkdir()
    for name in ("co2/a.png", "ch4/a.png", "ch4/b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((96, 128), 90, np.uint8))
    folders = [f"--{gas}={tmp_path / gas}" for gas in ("co2", "ch4")]
    result = run("fume_jax.predict", f"--workdir={tmp_path / 'run'}", *folders, f"--output={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    both, ch4_alone = csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines())
    assert both["class"] and both["Healthy"] and both["co2_gas_fraction"]
    said = {name: value for name, value in ch4_alone.items() if value and name != "milliseconds"}
    assert said == {"frame": "b", "co2": "absent", "ch4": "read"}
    assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == {"a_co2.png"}


@pytest.mark.soak
def test_training_goes_on_from_what_was_converted(tiny_dataset, tmp_path):
    """At a learning rate of zero the parameters stay those of the file."""
    torch.save(tensors("multi_task"), tmp_path / "bare.pth")
    still = ["--config.optimizer.learning_rate=1e-30", "--config.optimizer.final_learning_rate=1e-30"]
    config = [*SMALL, *still, "--config.train.epochs=1", "--config.optimizer.warmup_epochs=0", "--config.model.gas=ch4"]
    config += ["--config.model.name=multi_task", f"--config.data.path={tiny_dataset}"]
    workdir = f"--workdir={tmp_path / 'run'}"
    made = run(
        "fume_jax.convert", "--from-torch", tmp_path / "bare.pth", "--model=multi_task", "--gas=ch4", workdir, *config
    )
    assert made.returncode == 0, made.stderr
    trained = run("fume_jax.main", workdir, *config)
    assert trained.returncode == 0, trained.stderr
    exported = run("fume_jax.export", "--format=torch", f"--output={tmp_path / 'after.pth'}", workdir)
    assert exported.returncode == 0, exported.stderr
    after = torch.load(tmp_path / "after.pth", weights_only=True)["model_state_dict"]
    before = tensors("multi_task")
    parameters = [key for key in before if "running" not in key and "num_batches" not in key]
    assert_equal({key: after[key] for key in parameters}, {key: before[key] for key in parameters})
    changed = [key for key in before if "running_mean" in key and not torch.equal(after[key], before[key])]
    assert changed, "training must have seen batches"


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_file_is_refused_and_nothing_in_it_runs(tmp_path):
    torch.save({"model_state_dict": Hostile(str(tmp_path / "hacked"))}, tmp_path / "hostile.pth")
    arguments = [f"--from-torch={tmp_path / 'hostile.pth'}", "--model=fume", f"--workdir={tmp_path / 'run'}"]
    result = run("fume_jax.convert", *arguments)
    assert result.returncode == 1
    assert "code in such a file is never run" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "hacked").exists() and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--model=fume"], "Expected --from_torch"),
        (["--from-torch=FOLDER/other.pth"], "Expected --model"),
        (["--from-torch=FOLDER/none.pth", "--model=fume"], "There is no file"),
        (["--from-torch=README.md", "--model=fume"], "is not a PyTorch checkpoint"),
        (["--from-torch=FOLDER/list.pth", "--model=fume"], "holds no state dict"),
        (["--from-torch=FOLDER/inner.pth", "--model=fume"], "holds no state dict"),
        (["--from-torch=FOLDER/other.pth", "--model=fume"], "does not fit 'fume'"),
        (["--from-torch=FOLDER/other.pth", "--model=fumes"], "no preset 'fumes'"),
    ],
)
def test_mistakes_are_said_in_plain_words(tmp_path, arguments, words):
    torch.save({"cls_head.2.weight": torch.zeros(3)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"model_state_dict": [torch.zeros(3)]}, tmp_path / "inner.pth")
    arguments = [argument.replace("FOLDER", str(tmp_path)) for argument in arguments]
    result = run("fume_jax.convert", f"--workdir={tmp_path / 'run'}", *arguments)
    assert result.returncode == 1
    assert words in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


STRANGE = {
    "tensors that repeat a number": ({"a": torch.zeros(1).expand(10**12)}, "holds more numbers than a model"),
    "sparse": ({"a": torch.eye(3).to_sparse()}, "expected dense tensors of real numbers, got another kind in a"),
    "complex": ({"a": torch.zeros(3, dtype=torch.complex64)}, "got another kind in a"),
    "without values": ({"a": torch.zeros(3, device="meta")}, "got another kind in a"),
    "NaN": ({"a": torch.tensor([1.0, torch.nan])}, "a holds values that are not finite"),
    "beyond float32": ({"a": torch.tensor([1e300], dtype=torch.float64)}, "a holds values that are not finite"),
    "one key twice": ({"a": torch.zeros(3), "module.a": torch.ones(3)}, "keys with and without 'module.'"),
}


@pytest.mark.parametrize(("state_dict", "words"), STRANGE.values(), ids=STRANGE)
def test_tensors_that_no_model_has_are_refused(tmp_path, state_dict, words):
    torch.save({"model_state_dict": state_dict}, tmp_path / "strange.pth")
    with pytest.raises(UserError, match=rf"strange\.pth.*{words}"):
        importer._read(str(tmp_path / "strange.pth"))


def test_parameters_that_learn_and_those_of_parallel_training_are_read(tmp_path):
    torch.save({"module.a": torch.nn.Parameter(torch.ones(2)), "module.b": torch.ones(2).half()}, tmp_path / "a.pth")
    arrays = importer._read(str(tmp_path / "a.pth"))
    assert {key: (array.dtype, array.tolist()) for key, array in arrays.items()} == {
        key: (np.float32, [1.0, 1.0]) for key in ("a", "b")
    }


def test_an_archive_that_would_fill_the_memory_is_refused_unread(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", bytes(10**6 + 1))
    monkeypatch.setattr(importer, "MAX_BYTES", 10**6)
    with pytest.raises(UserError, match=r"bomb\.pth would take .* unpacked; expected at most"):
        importer._read(str(tmp_path / "bomb.pth"))


def test_the_config_of_a_converted_run_is_that_of_its_model(tmp_path):
    torch.save(tensors("segmentation_only"), tmp_path / "bare.pth")
    common = ["--from-torch", tmp_path / "bare.pth", "--model=segmentation_only"]
    for options, gas in (([], None), (["--config=fume:segmentation_only", "--config.model.gas=ch4"], "ch4")):
        workdir = tmp_path / f"run_{gas}"
        result = run("fume_jax.convert", *common, f"--workdir={workdir}", *options)
        assert result.returncode == 0, result.stderr
        config = json.loads((workdir / "config.json").read_text())
        assert config["checkpoint"]["best_metric"] == "mean_iou"
        assert (config["model"]["name"], config["model"]["gas"]) == ("segmentation_only", gas)


def test_a_run_is_not_overwritten(converted, tmp_path):
    torch.save(tensors("fume"), tmp_path / "bare.pth")
    arguments = [f"--from-torch={tmp_path / 'bare.pth'}", "--model=fume", f"--workdir={converted}"]
    result = run("fume_jax.convert", *arguments)
    assert result.returncode == 1
    assert "holds a run already" in result.stderr
