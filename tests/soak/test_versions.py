"""The oldest versions that setup.cfg admits, the newest ones, and the next Python train and predict."""

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fume_jax.inference.predictor import pretrained_examples
from tests.commands import ROOT, train_arguments


def requirements():
    """Those of the package itself, as pip takes them."""
    config = configparser.ConfigParser(inline_comment_prefixes="#")
    config.read(ROOT / "setup.cfg")
    return [line for line in config["options"]["install_requires"].splitlines() if line.strip()]


def oldest(requirement):
    """The lowest version that a requirement admits, if it states one."""
    return re.sub(r"\s*>=\s*([\d.]+).*", r"==\1", requirement)


def newer_python():
    """Path of an interpreter of Python 3.12; skips, loudly, where there is none."""
    found = [
        shutil.which("python3.12"),
        *Path(os.environ.get("PYENV_ROOT", "/nowhere")).glob("versions/3.12*/bin/python"),
    ]
    for path in filter(None, found):
        if subprocess.run([str(path), "-c", "import venv"], capture_output=True).returncode == 0:
            return str(path)
    pytest.skip("PYTHON 3.12 NOT TRIED: this machine has no such interpreter")


def install(python, folder, packages):
    """An interpreter of a new environment with these packages; skips, loudly, where they cannot be had."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = str(folder / "bin" / "python")
    result = subprocess.run([own, "-m", "pip", "install", "-q", *packages], capture_output=True, text=True)
    if "No matching distribution" in result.stderr and "from versions: none" in result.stderr:
        pytest.skip("VERSIONS NOT TRIED: the package index is out of reach")
    assert result.returncode == 0, result.stderr
    return own


def assert_works(python, dataset, folder):
    """Trains for an epoch and predicts, each in a process of that interpreter."""
    frames = [f"--{gas}={file}" for gas, file in pretrained_examples()["healthy_jet"].items()]
    short = ["--config.train.epochs=1", "--config.eval.every_epochs=1"]
    for words in (
        ["fume_jax.main", *train_arguments(dataset, folder / "run"), *short],
        ["fume_jax.predict", *frames, f"--workdir={folder / 'run'}", f"--output={folder / 'out'}"],
    ):
        result = subprocess.run([python, "-m", "tests.tiny", *words], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["oldest", "newest"])
def test_admitted_versions_train_and_predict(tiny_dataset, tmp_path, kind):
    packages = [oldest(line) if kind == "oldest" else line for line in requirements()]
    assert_works(install(sys.executable, tmp_path / "venv", packages), tiny_dataset, tmp_path)


@pytest.mark.soak
def test_the_next_python_trains_and_predicts(tiny_dataset, tmp_path):
    assert_works(install(newer_python(), tmp_path / "venv", requirements()), tiny_dataset, tmp_path)


def test_oldest_versions_are_read_from_the_requirements():
    found = {oldest(line) for line in requirements()}
    assert "jax==0.10.2" in found and "av==18.1" in found and "numpy" in found
    assert not any(mark in line for line in found for mark in "<>#")
