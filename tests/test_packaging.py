"""What is installed predicts by itself, without the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.commands import ROOT


@pytest.mark.slow
def test_an_installed_package_predicts_with_the_model_that_is_in_it(tmp_path):
    source, installed = tmp_path / "source", tmp_path / "installed"
    shutil.copytree(ROOT / "fume_jax", source / "fume_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(installed)
    assert not {path.name for path in installed.iterdir()} & {"configs", "datasets", "launch", "benchmarks", "tests"}
    example = installed / "fume_jax" / "assets" / "examples" / "healthy_jet_co2.png"
    command = [sys.executable, "-m", "fume_jax.predict", f"--co2={example}", "--output=output"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "output" / "masks" / "healthy_jet_co2.png").is_file()
    where = [sys.executable, "-c", "import fume_jax; print(fume_jax.__file__, fume_jax.__version__)"]
    printed = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
    path, version = printed.split()
    assert path.startswith(str(installed))
    assert version in wheel.name
