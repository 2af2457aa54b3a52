"""What lies between the shell and the first step: few imports, no program compiled twice."""

import os
import subprocess
import sys

import chex
import jax
import pytest

from configs import demo
from fume_jax.config import abstract_model, create_optimizer
from fume_jax.runtime.mesh import create_mesh, replicated
from fume_jax.training.setup import abstract_state, create_state_fn
from tests.commands import ROOT

KEEP_ONE_PROGRAM = """
from fume_jax.runtime import cli
cli.enable_compilation_cache()
import jax
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(jax.jit(lambda x: x + 1)(1))
"""


def python(script, **variables):
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, timeout=60, check=True
    )


def test_training_starts_without_what_only_scores_and_pictures_need():
    imported = set(python("import sys, fume_jax.training.loop; print(*sys.modules)").stdout.split())
    assert {"jax", "orbax.checkpoint", "tensorboardX"} <= imported
    assert not imported & {"matplotlib", "scipy.ndimage", "scipy.spatial", "sklearn", "torch", "pandas", "tensorflow"}


def test_pytorch_can_be_imported_before_and_after_the_monitor():
    script = (
        "import {}, fume_jax.training.tensorboard, sys; import torch; print(torch.ones(2).sum(), sys.modules['torch'])"
    )
    for first in ("torch", "sys"):
        assert "tensor(2.)" in python(script.format(first)).stdout


def test_compiled_programs_are_kept_for_this_user(tmp_path):
    assert python(KEEP_ONE_PROGRAM, XDG_CACHE_HOME=str(tmp_path)).stdout == "2\n"
    assert any("lambda" in path.name for path in (tmp_path / "fume_jax" / "programs").iterdir())


def test_compiled_programs_are_kept_where_the_user_says(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    python(KEEP_ONE_PROGRAM, XDG_CACHE_HOME=str(tmp_path / "cache"), JAX_COMPILATION_CACHE_DIR=str(elsewhere))
    assert any("lambda" in path.name for path in elsewhere.iterdir())
    assert not any((tmp_path / "cache").rglob("*lambda*"))


def test_a_folder_of_compiled_programs_is_private_and_heals(tmp_path):
    folder = tmp_path / "fume_jax" / "programs"
    script = f"import os; os.umask(0)\n{KEEP_ONE_PROGRAM}"
    python(script, XDG_CACHE_HOME=str(tmp_path))
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)  # as an earlier version may have left it
    (program,) = folder.glob("*lambda*-cache")
    whole = program.read_bytes()
    program.write_bytes(whole[: len(whole) // 2])  # as a full disk or a kill leaves it
    healed = python(script, XDG_CACHE_HOME=str(tmp_path))
    assert healed.stdout == "2\n"
    assert healed.stderr == f"WARNING: a compiled program in {folder} is damaged and is made anew\n"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(program.read_bytes()) > len(whole) // 2
    assert python(script, XDG_CACHE_HOME=str(tmp_path)).stderr == ""


def test_a_home_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").touch()
    result = python(KEEP_ONE_PROGRAM, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert result.stdout == "2\n" and "Error" not in result.stderr


def test_who_changes_an_abstract_model_changes_no_other():
    config = demo.get_config()
    first = abstract_model(config)
    first.eval()
    second = abstract_model(config)
    assert first.encoder.downsample.norm.use_running_average
    assert not second.encoder.downsample.norm.use_running_average


@pytest.mark.parametrize("ema_decay", [0.0, 0.99])
def test_the_abstract_state_is_that_of_what_is_created(ema_decay):
    config = demo.get_config()
    config.train.ema_decay = ema_decay
    mesh = create_mesh()
    _, tx = create_optimizer(config, steps_per_epoch=2)
    abstract = abstract_state(config, tx, mesh)
    chex.assert_trees_all_equal_shapes_and_dtypes(abstract, jax.eval_shape(create_state_fn(config, tx, mesh)))
    assert all(leaf.sharding == replicated(mesh) for leaf in jax.tree.leaves(abstract))
