"""Prediction from an ONNX file needs what deploy/requirements.txt installs, and nothing of JAX."""

import csv
import dataclasses
import json
import subprocess
import sys

import pytest

from fume_jax.inference.backends import open_backend
from fume_jax.inference.formats import PRETRAINED
from fume_jax.inference.onnx_backend import _providers
from fume_jax.runtime.errors import UserError
from tests.blocked import installed_by
from tests.commands import ROOT
from tests.inference.small_onnx import write_onnx
from tests.inference.test_predictor import CARD
from tests.videos import encode, noise

REQUIREMENTS = ROOT / "deploy" / "requirements.txt"
EXAMPLES = PRETRAINED / "examples"
PREDICT = """
import sys
import fume_jax
predictor = fume_jax.Predictor.load(sys.argv[1])
prediction = predictor(co2=sys.argv[2])
print(prediction.label, prediction.masks["co2"].shape)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"jax", "flax", "scipy", "matplotlib", "cv2"}))
"""
COMMAND = "from fume_jax.__main__ import main; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_onnx(tmp_path_factory.mktemp("light") / "model.onnx", CARD)


def blocked(code, *arguments, requirements=REQUIREMENTS):
    command = [sys.executable, "-m", "tests.blocked", requirements, code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_requirements_hold_nothing_of_training():
    packages = installed_by(REQUIREMENTS)
    assert {"numpy", "cv2", "av", "PIL", "onnxruntime"} <= packages
    assert not packages & {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "scipy", "torch"}


def test_a_predictor_of_an_onnx_file_imports_nothing_of_jax(model):
    result = blocked(PREDICT, model, EXAMPLES / "healthy_jet_co2.png")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "Healthy (240, 320)\ncv2\n"


def test_the_command_predicts_a_film_without_jax_and_says_what_it_leaves_out(model, tmp_path):
    film = encode(tmp_path / "co2.mp4", map(noise, range(8)))
    arguments = [f"--model={model}", f"--co2={film}", f"--output={tmp_path / 'out'}", "--tta", "--save=probabilities"]
    result = blocked(COMMAND, "predict", *arguments)
    assert result.returncode == 0, result.stderr
    assert "note: no timeline.png, as matplotlib is not installed" in result.stdout
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((tmp_path / "out" / "recording.json").read_text())["summary"]
    assert summary["frames"] == len(rows) > 1 and rows[0]["class"] == "Healthy"


def test_steps_of_training_come_after_what_the_model_started_from(tmp_path):
    tuned = dataclasses.replace(CARD, step=0, config={"init_from": "runs/other"})
    model = write_onnx(tmp_path / "model.onnx", tuned)
    output = f"--output={tmp_path / 'out'}"
    result = blocked(COMMAND, "predict", f"--model={model}", f"--co2={EXAMPLES / 'healthy_jet_co2.png'}", output)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("fume, 0 steps of training after runs/other, frames scaled to 80x64")


def test_a_watch_needs_nothing_of_jax(model, tmp_path):
    film = encode(tmp_path / "co2.mp4", map(noise, range(8)))
    arguments = [f"--model={model}", f"--co2={film}", "--port=0", f"--films={tmp_path / 'films'}"]
    result = blocked(COMMAND, "watch", *arguments, f"--events={tmp_path / 'events'}")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[0])["class"] == "Healthy"
    assert len(list((tmp_path / "films").glob("*.mp4"))) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "A run folder needs jax, which is not installed. Export the model to ONNX where all of fume_jax is"),
        (["--model=bad.stablehlo"], "A file for stablehlo needs jax, which is not installed"),
        (["--model=bad.pth"], "A file for torch needs"),
    ],
)
def test_a_model_that_needs_jax_is_refused_in_plain_words(tmp_path, arguments, words):
    arguments = [argument.replace("bad", f"{tmp_path}/bad") for argument in arguments]
    for ending in ("stablehlo", "pth"):
        (tmp_path / f"bad.{ending}").write_bytes(b"bad")
    result = blocked(COMMAND, "predict", *arguments, f"--co2={EXAMPLES}", f"--output={tmp_path / 'out'}")
    assert result.returncode == 1 and words in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("command", "package", "remedy"),
    [
        ("train --config=demo --workdir=run", "ml_collections", "pip install -e . in a checkout"),
        ("convert --from_torch=a.pth --model=fume --workdir=run", "ml_collections", "pip install -e . in a checkout"),
        ("evaluate --workdir=run", "jax", "pip install -e . in a checkout"),
        ("export --format=onnx --output=a.onnx", "jax", "pip install -e . in a checkout"),
        ("benchmark --model=a.onnx", "jax", "pip install -e . in a checkout"),
        ("summary", "flax", "pip install -e . in a checkout"),
        ("report --runs=run", "ml_collections", "pip install -e . in a checkout"),
        ("review --predictions=run --output=chosen", "scipy", "pip install scipy\n"),
        ("app", "gradio", "pip install gradio, or in a checkout"),
    ],
)
def test_a_command_that_needs_more_says_what_to_install_in_a_line(command, package, remedy):
    result = blocked(COMMAND, *command.split())
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("error: ") and f"needs {package}, which is not installed" in result.stderr
    assert remedy in result.stderr


def test_frames_to_label_are_chosen_with_scipy_beside_them(model, tmp_path):
    (tmp_path / "requirements.txt").write_text(REQUIREMENTS.read_text() + "scipy\n")
    film = encode(tmp_path / "co2.mp4", map(noise, range(8)))
    result = blocked(COMMAND, "predict", f"--model={model}", f"--co2={film}", f"--output={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    review = [f"--model={model}", f"--predictions={tmp_path / 'out'}", f"--output={tmp_path / 'chosen'}", "--frames=3"]
    result = blocked(COMMAND, "review", *review, requirements=tmp_path / "requirements.txt")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "chosen" / "review.csv").is_file()


def test_providers_are_named_as_users_know_them_and_missing_ones_are_told():
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert _providers(both, None) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert _providers(both, ["TensorRT", "CPU"]) == ["TensorrtExecutionProvider", "CPUExecutionProvider"]
    with pytest.raises(UserError, match=r"no provider CUDA; it has CPU\. .*onnxruntime-gpu"):
        _providers(["CPUExecutionProvider", "AzureExecutionProvider"], ["CUDA", "CPU"])
    with pytest.raises(UserError, match="no provider CPUExecutionProvider"):
        _providers(both, ["CPUExecutionProvider"])


def test_providers_go_to_onnx_files_alone(model, tmp_path):
    assert open_backend(model, None, ["CPU"]).card == CARD
    (tmp_path / "bad.pth").write_bytes(b"bad")
    for path in (tmp_path / "bad.pth", tmp_path):
        with pytest.raises(UserError, match="--providers is for ONNX files, and"):
            open_backend(path, None, ["CPU"])
