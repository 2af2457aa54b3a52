"""A run that was killed, stopped or moved ends as one that never was."""

import random
import re
import signal
import time

import jax
import numpy as np
import pytest

from fume_jax.config import create_optimizer
from fume_jax.runtime.mesh import create_mesh, replicated
from fume_jax.training.checkpoint import load_config, with_sharding
from fume_jax.training.setup import create_state_fn, open_checkpoints
from fume_jax.training.tensorboard import read_scalars
from tests.commands import run, start, train_arguments

OPTIONS = [
    "--config.model.name=multi_task",
    "--config.train.ema_decay=0.9",
    "--config.train.gradient_accumulation_steps=2",
    "--config.checkpoint.keep_every_epochs=4",
    "--config.early_stopping.patience=50",
    "--config.log.every_steps=4",  # not a divisor of an epoch: checkpoints fall between two logs
    "--config.log.images=1",
]


@pytest.fixture(scope="module")
def whole(tiny_dataset, tmp_path_factory):
    """The folder of a run that was never stopped, and how many seconds it took."""
    workdir = tmp_path_factory.mktemp("resume") / "whole"
    begin = time.time()
    result = run("fume_jax.main", *train_arguments(tiny_dataset, workdir), *OPTIONS)
    assert result.returncode == 0, result.stderr
    return workdir, time.time() - begin


def numbers(workdir):
    """All numbers of a finished run that do not tell time: of its checkpoints, its logs and its report."""
    config = load_config(workdir)
    mesh = create_mesh()
    _, tx = create_optimizer(config, steps_per_epoch=6)
    abstract = jax.eval_shape(create_state_fn(config, tx, mesh))
    checkpoints = open_checkpoints(config, workdir, read_only=True)
    found = {}
    for step in sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()):
        state, progress = checkpoints.restore(with_sharding(abstract, replicated(mesh)), step)
        leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(state))
        found |= {f"{step}{jax.tree_util.keystr(path)}": leaf.tobytes() for path, leaf in leaves}
        found[f"{step} progress"] = progress
    scalars = read_scalars(workdir)
    found |= {tag: curve for tag, curve in scalars.items() if not tag.startswith(("speed/", "memory/"))}
    for path in ("metrics.json", "validation.json", "examples/val.csv", "examples/test.csv"):
        found[path] = (workdir / path).read_text()
    return found


def assert_same(workdir, whole):
    found, expected = numbers(workdir), numbers(whole)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def live(arguments, seconds, kill_in_save, folder):
    """Starts a run and kills it some seconds after it has begun to train, or while it saves; None if it ended first."""
    process = start("fume_jax.main", *arguments, *OPTIONS)
    if seconds is None:  # anywhere in the start
        seconds = random.uniform(0, 4)
    else:
        while not (line := process.stdout.readline()).startswith(("epoch", "resuming")):
            assert process.poll() is None, line
    deadline = time.time() + seconds
    while process.poll() is None and time.time() < deadline:
        if kill_in_save and any(folder.glob("*tmp*")):
            break
        time.sleep(0.002)
    process.kill()
    printed = process.communicate()[0]
    assert "Traceback" not in printed
    return process.returncode == -signal.SIGKILL


def kill_often(count, whole, dataset, folder, seed=0):
    """Kills runs at random moments, and compares each that ends with one that was never stopped."""
    random.seed(seed)
    kills, runs, begin = 0, 0, time.time()
    while kills < count:
        workdir = folder / f"killed{runs}"
        arguments = train_arguments(dataset, workdir)
        while kills < count:
            # From the first step on, often in a save; every fifth anywhere in the start.
            seconds = None if kills % 5 == 4 else random.uniform(0, 4)
            if not live(arguments, seconds, kills % 3 == 0, workdir / "checkpoints"):
                break
            kills += 1
        result = run("fume_jax.main", *arguments, *OPTIONS)
        assert result.returncode == 0, result.stderr
        assert_same(workdir, whole[0])
        runs += 1
    print(f"{kills} kills in {runs} run(s), {(time.time() - begin - runs * whole[1]) / kills:.1f} s lost a kill")


@pytest.mark.slow
def test_kills_at_random_moments_change_no_bit(whole, tiny_dataset, tmp_path):
    kill_often(5, whole, tiny_dataset, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, line, expected",
    [(signal.SIGTERM, "epoch 3", None), (signal.SIGUSR2, "epoch 2, step 12 of", 12)],
    ids=["between steps", "in an evaluation"],
)
def test_a_stopped_run_saves_at_once_and_goes_on_from_there(whole, tiny_dataset, tmp_path, number, line, expected):
    workdir = tmp_path / "stopped"
    arguments = train_arguments(tiny_dataset, workdir)
    process = start("fume_jax.main", *arguments, *OPTIONS)
    while not process.stdout.readline().startswith(line):
        assert process.poll() is None
    process.send_signal(number)
    printed = process.communicate()[0]
    assert process.returncode == 75, printed
    step = int(re.search(r"stopped after step (\d+) of 36; the same command resumes the run", printed)[1])
    assert expected in (None, step)
    assert (workdir / "checkpoints" / str(step)).is_dir()
    assert not (workdir / "metrics.json").exists(), "stopped too late to show anything"
    result = run("fume_jax.main", *arguments, *OPTIONS)
    assert result.returncode == 0, result.stderr
    assert f"resuming after step {step}" in result.stdout
    assert_same(workdir, whole[0])


@pytest.mark.slow
def test_on_other_devices_a_run_goes_on_at_the_same_example_and_says_so(whole, tiny_dataset, tmp_path):
    workdir = tmp_path / "moved"
    arguments = train_arguments(tiny_dataset, workdir)
    process = start("fume_jax.main", *arguments, *OPTIONS)
    while not process.stdout.readline().startswith("epoch 4"):
        assert process.poll() is None
    process.terminate()
    process.communicate()
    result = run("fume_jax.main", *arguments, *OPTIONS, devices=2)
    assert result.returncode == 0, result.stderr
    assert "so far on 1 device(s), now on 2: numbers may differ by rounding" in result.stdout
    (steps, losses), (_, moved) = (read_scalars(folder)["train/loss"] for folder in (whole[0], workdir))
    assert read_scalars(workdir)["train/loss"][0] == steps
    assert moved[:4] == losses[:4]
    assert moved[5:] != losses[5:]
    # Steps 21 to 28, just after the move: the same examples, and rounding has not grown yet.
    np.testing.assert_allclose(moved[5:7], losses[5:7], rtol=1e-2)
