"""The wheel works by itself, in an environment without the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

from tests.commands import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of the commands of an environment that has the wheel, and of its frames to try."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("fume_jax", "configs"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, folder / "source"], check=True)
    shutil.rmtree(folder / "source")
    venv.create(folder / "env")
    python = folder / "env" / "bin" / "python"
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", "--no-deps", wheel], check=True)
    (site,) = folder.glob("env/lib/python*/site-packages")
    assert sorted(path.name for path in site.iterdir() if "info" not in path.name) == ["fume_jax"]
    # The dependencies of this environment, but not what it has installed as editable.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "env" / "bin", site / "fume_jax" / "assets" / "examples"


def fume(installed, folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [installed[0] / "fume", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_the_installed_command_predicts_with_the_pretrained_model(installed, tmp_path):
    frame = installed[1] / "healthy_jet_co2.png"
    result = fume(installed, tmp_path, "predict", f"--co2={frame}", "--output=output")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "output" / "masks" / "healthy_jet_co2.png").is_file()


@pytest.mark.slow
def test_the_installed_command_finds_configs_by_name(installed, tmp_path):
    result = fume(installed, tmp_path, "train", "--config=demo", "--help")
    assert result.returncode == 0 and "--workdir" in result.stdout
    for config in ("demo", "fume:early_fusion"):
        result = fume(installed, tmp_path, "train", f"--config={config}", "--workdir=run", "--config.data.path=nowhere")
        assert result.returncode == 1 and "no prepared dataset in 'nowhere'" in result.stderr
    result = fume(installed, tmp_path, "train", "--config=dmeo", "--workdir=run")
    assert result.returncode == 1
    for word in ("no config 'dmeo'", "demo", "fume_fast", "--config=DIR/NAME.py"):
        assert word in result.stderr
