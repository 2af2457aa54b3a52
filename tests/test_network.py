"""No command looks for a name or for another machine, whatever its libraries would send, or leaves anything behind."""

import os
import sys

import numpy as np
import pytest

from fume_jax.inference.jax_backends import WeightsBackend
from fume_jax.inference.predictor import pretrained_examples
from tests import no_network
from tests.commands import train_arguments
from tests.inference.test_backends import card_and_model

BACKENDS = {"onnx": "model.onnx", "torch": "model.pth", "stablehlo": "model.stablehlo"}
# Starts the page, waits a little, since Gradio would ask a moment after its start, and ends it.
VISIT = """
import subprocess, sys, time
page = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, text=True)
print(page.stdout.readline())
time.sleep(5)
page.terminate()
sys.exit(page.wait())
"""


def commands(root):
    """Every command, by name, in an order in which each finds what it needs."""
    frames = [f"--{gas}={pretrained_examples()['healthy_jet'][gas]}" for gas in ("co2", "ch4")]
    data, run, model = root / "data", root / "run", root / "model"
    dataset = data / "synthetic_ogi" / "tiny" / "3.0.0"
    size = ["--copies=2", "--height=48", "--width=64"]
    short = ["--config.train.epochs=1", "--config.eval.every_epochs=1"]
    server = ["-m", "fume_jax.app", f"--workdir={model}", "--port=0"]
    yield "render", ["datasets.synthetic_ogi", f"--data_dir={data}", "--name=tiny"]
    yield (
        "example",
        ["datasets.fume_ogi.example", f"--output={root / 'source'}", *size],
    )
    yield (
        "prepare",
        ["datasets.fume_ogi", f"--source={root / 'source'}", f"--data_dir={data}", f"--report={root}/r.csv"],
    )
    yield "train", ["fume_jax.main", *train_arguments(dataset, run), *short]
    yield "evaluate", ["fume_jax.evaluate", f"--workdir={run}", "--split=test"]
    yield "summary", ["fume_jax.summary"]
    for format, file in BACKENDS.items():
        yield f"export {format}", ["fume_jax.export", f"--workdir={model}", f"--format={format}"]
        arguments = [*frames, f"--model={model / file}", f"--output={root / format}"]
        yield f"predict {format}", ["fume_jax.predict", *arguments]
    yield "export weights", ["fume_jax.export", f"--workdir={model}", "--format=weights", f"--output={root / 'small'}"]
    yield "predict jax", ["fume_jax.predict", *frames, f"--workdir={root / 'small'}", f"--output={root / 'jax'}"]
    convert = [f"--from_torch={model / 'model.pth'}", "--model=classification_only", f"--workdir={root / 'converted'}"]
    yield "watch", ["fume_jax.commands.watch", f"--co2={root / 'film.npy'}", f"--workdir={model}", "--port=0"]
    yield "convert", ["fume_jax.convert", *convert]
    for backend in ("local", "slurm", "cloud"):
        sweep = ["--sweep=launch/sweeps/baselines.py", f"--workdir={root / backend}", f"--backend={backend}"]
        sweep += ["--bucket=gs://none", "--accelerator=L4:1"] if backend == "cloud" else []
        yield f"sweep {backend}", ["launch.sweep", *sweep, "--dry_run"]
    for backend in ("local", "slurm"):
        shares = ["--recordings=fume_jax/assets", f"--output={root / 'shares'}", "--shares=1", f"--backend={backend}"]
        yield f"shares {backend}", ["launch.predict", *shares, "--dry_run"]
    yield "app", [sys.executable, "-c", VISIT, sys.executable, *server]


NAMES = [name for name, _ in commands(os.path and __import__("pathlib").Path("."))]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    root = tmp_path_factory.mktemp("network")
    WeightsBackend.write(root / "model", *reversed(card_and_model("classification_only")))
    np.save(root / "film.npy", np.zeros((5, 48, 64), np.uint8))
    own = {"HOME": root / "home", "TMPDIR": root / "tmp", "MPLCONFIGDIR": root / "matplotlib"}
    for folder in own.values():
        folder.mkdir()
    answers = no_network.run_all(
        [words for _, words in commands(root)], os.environ | {k: str(v) for k, v in own.items()}
    )
    return root, dict(zip(NAMES, answers, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_command_does_its_work_and_tries_to_reach_nobody(answers, name):
    answer = answers[1][name]
    assert answer["code"] == 0, answer["output"]
    assert (answer["names"], answer["connections"]) == ([], 0), answer["output"]


@pytest.mark.slow
def test_nothing_is_left_in_the_home_or_among_temporary_files(answers):
    root, _ = answers
    files = [path for folder in ("home", "tmp") for path in (root / folder).rglob("*") if path.is_file()]
    # SkyPilot keeps a state of its own, of which it tells nobody.
    assert [str(path.relative_to(root)) for path in files if ".sky" not in path.parts] == []


@pytest.mark.slow
def test_what_is_looked_for_would_be_seen():
    """The check itself: a name, and addresses of both versions."""
    name = "import socket; socket.getaddrinfo('telemetry.example.com', 443)"
    addresses = [("socket.AF_INET", "8.8.8.8"), ("socket.AF_INET6", "2001:4860:4860::8888")]
    codes = [name, *(f"import socket; socket.socket({kind}).connect(('{to}', 443))" for kind, to in addresses)]
    found = no_network.run_all([[sys.executable, "-c", code] for code in codes], os.environ)
    assert [answer["names"] for answer in found] == [["telemetry.example.com"], [], []]
    assert [answer["connections"] for answer in found] == [0, 1, 1]
