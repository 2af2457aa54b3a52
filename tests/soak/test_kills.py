"""Commands that are killed at random leave nothing half done under a final name, and the next start ends well."""

import csv
import dataclasses
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

from fume_jax.data.dataset import Dataset
from fume_jax.inference.backends import open_backend
from fume_jax.inference.jax_backends import WeightsBackend
from fume_jax.inference.predictor import pretrained_examples
from tests.commands import run, start
from tests.inference.test_backends import card_and_model
from tests.soak.tally import TALLY
from tests.training.test_resume import kill_often, whole  # noqa: F401


@dataclasses.dataclass
class Command:
    """A command, and how to see of a folder that it has begun to write, is sound, and is done."""

    words: Callable[[Path], list]
    begun: str  # pattern of a file that is there once it writes
    sound: Callable[[Path], None]  # asserts that what is there under final names is whole
    done: Callable[[Path], object]  # what a finished one leaves; equal for all
    leftovers: tuple[str, ...]


def assert_pictures_whole(folder):
    for path in folder.rglob("*.png"):
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, path


# --- the commands; each works in a folder that `prepare` has filled ---


def predict_words(folder):
    return ["fume_jax.predict", f"--co2={folder}/frames", f"--workdir={folder}/run", f"--output={folder}/out"]


def rows(folder):
    with open(folder / "out" / "predictions.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "milliseconds"} for row in csv.DictReader(file)]


def predicted_sound(folder):
    assert_pictures_whole(folder / "out")
    if (folder / "out" / "predictions.csv").exists():
        assert len(rows(folder)) == 60


def export_words(folder):
    return ["fume_jax.export", f"--workdir={folder}/model", "--format=torch", f"--output={folder}/out/m.pth"]


def exported_sound(folder):
    path = folder / "out" / "m.pth"
    return path.exists() and open_backend(path).card


def evaluate_words(folder):
    return ["fume_jax.evaluate", f"--workdir={folder / 'run'}", "--split=val"]


def evaluated(folder):
    return json.loads((folder / "run" / "metrics.json").read_text())


def evaluated_sound(folder):
    assert_pictures_whole(folder / "run" / "pictures")
    if (folder / "run" / "metrics.json").exists():
        evaluated(folder)


def render_words(folder):
    return ["datasets.synthetic_ogi", f"--data_dir={folder / 'data'}", "--name=tiny"]


def prepare_words(folder):
    # Twelve recordings are too few for every class in every split.
    options = [f"--report={folder / 'faults.csv'}", "--allow=empty_class"]
    return ["datasets.fume_ogi", f"--source={folder / 'source'}", f"--data_dir={folder / 'data'}", *options]


def datasets(folder):
    found = [Dataset(str(path.parent)) for path in sorted(folder.glob("data/*/*/*/dataset_info.json"))]
    return [[example["label"] for split in found.splits for example in found.split(split)] for found in found]


COMMANDS = {
    "predict": Command(predict_words, "out/masks/*", predicted_sound, rows, ("**/*.part",)),
    "export": Command(export_words, "out/.export-*", exported_sound, exported_sound, ("**/.export-*", "**/*.part")),
    "evaluate": Command(evaluate_words, "run/examples", evaluated_sound, evaluated, ("**/*.part",)),
    "render": Command(render_words, "data/*/*/incomplete*", datasets, datasets, ("**/incomplete*",)),
    "prepare": Command(prepare_words, "data/*/*/incomplete*", datasets, datasets, ("**/incomplete*",)),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, trained):
    """A folder with all that the commands need."""
    root = tmp_path_factory.mktemp("inputs")
    (root / "frames").mkdir()
    examples = [file for files in pretrained_examples().values() for file in files.values()]
    for i in range(60):
        shutil.copy(examples[i % len(examples)], root / "frames" / f"{i}.png")
    shutil.copytree(trained[0], root / "run", ignore=shutil.ignore_patterns("metrics.json", "examples", "pictures"))
    card, model = card_and_model("classification_only")
    WeightsBackend.write(root / "model", model, card)
    size = ["--recordings=12", "--copies=12", "--height=48", "--width=64"]
    made = run("datasets.fume_ogi.example", f"--output={root / 'source'}", *size)
    assert made.returncode == 0, made.stderr
    return root


def kill(words, folder, begun, seconds):
    """Starts a command and kills it, with all processes it has started; True unless it ended before."""
    process = start(*map(str, words), group=True)
    while process.poll() is None and begun and not any(folder.glob(begun)):
        time.sleep(0.005)
    time.sleep(seconds)
    ended = process.poll() is not None
    os.killpg(process.pid, signal.SIGKILL) if not ended else None
    printed = process.communicate()[0]
    assert "Traceback" not in printed, printed
    return not ended


def kill_and_finish(name, inputs, folder, kills, seed):
    """Kills a command so often, looks at what it left, lets it finish, and compares that with an undisturbed one."""
    command, area, rng = COMMANDS[name], f"kills, {name}", random.Random(seed)
    undisturbed = folder / "undisturbed"
    shutil.copytree(inputs, undisturbed)
    result = run(*command.words(undisturbed))
    assert result.returncode == 0, result.stderr
    killed = 0
    for attempt in range(3 * kills):
        work = folder / str(attempt)
        shutil.copytree(inputs, work)
        # One in four anywhere in the start, the others soon after the first file.
        begun, seconds = ("", rng.uniform(0, 6)) if attempt % 4 == 3 else (command.begun, rng.uniform(0, 0.7))
        if not kill(command.words(work), work, begun, seconds):
            continue
        killed += 1
        with TALLY.case(area, f"kill {killed} after {seconds:.2f} s", go_on=True):
            command.sound(work)
            again = run(*command.words(work))
            assert again.returncode == 0, again.stdout + again.stderr
            assert command.done(work) == command.done(undisturbed)
            assert [str(left) for pattern in command.leftovers for left in work.glob(pattern)] == []
        shutil.rmtree(work)
        if killed == kills:
            break
    TALLY.check(area)


@pytest.mark.slow
def test_a_kill_leaves_nothing_half_done(inputs, tmp_path):
    kill_and_finish("predict", inputs, tmp_path, 1, seed=0)


@pytest.mark.soak
@pytest.mark.parametrize("name", COMMANDS)
def test_six_kills_leave_nothing_half_done(inputs, tmp_path, name):
    kill_and_finish(name, inputs, tmp_path, 6, seed=1)


@pytest.mark.soak
def test_twenty_kills_of_a_training_change_no_bit(whole, tiny_dataset, tmp_path):  # noqa: F811
    for i in range(4):
        with TALLY.case("kills, train (five each)", f"part {i}"):
            kill_often(5, whole, tiny_dataset, tmp_path / str(i), seed=i)
