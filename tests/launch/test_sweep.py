"""The command as a user runs it: a sweep of real trainings that fail, are killed and stopped, and go on."""

import json
import os
import signal
import time

import psutil
import pytest

from tests.commands import assert_refused, run, start

SWEEP = """
from launch.plan import Sweep

def get_sweep():
    return Sweep(
        config="configs/multi_task.py",
        entries={{
            "long": {{"train.epochs": 12}},
            "first": {{}},
            "tuned": {{"init_from": "{folder}/elsewhere"}},
            "ch4": {{"model.gas": "ch4"}},
            "other": {{"config": "configs/early_fusion.py"}},
            "uniform": {{"data.sampling": "uniform"}},
        }},
    )
"""
NAMES = [f"{entry}-seed_0" for entry in ("long", "first", "tuned", "ch4", "other", "uniform")]


@pytest.fixture
def sweep(tmp_path):
    """Arguments of a sweep of six runs, two at once, one of which fails until there is a run folder `elsewhere`."""
    (tmp_path / "six.py").write_text(SWEEP.format(folder=tmp_path))
    return [f"--sweep={tmp_path}/six.py", f"--workdir={tmp_path}/sweep", "--smoke", "--parallel=2", "--gpus=0"]


@pytest.fixture
def trained_sweep(sweep, tiny_dataset):
    """The same, of frames that there are."""
    return [*sweep, f"--set=data.path={tiny_dataset}"]


def training(launcher, name, seconds=300):
    """The process that trains a run, once it has saved a step of it."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        for process in psutil.Process(launcher.pid).children(recursive=True):
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            workdir = next((word for word in words if word.endswith(f"/{name}")), None)
            if workdir and "fume_jax.main" in words:
                steps = os.path.join(workdir.removeprefix("--workdir="), "checkpoints")
                if os.path.isdir(steps) and any(step.isdigit() for step in os.listdir(steps)):
                    return process
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.1)
    raise AssertionError(f"{name} was not trained")


def states(printed):
    """What the table, printed last, says of each run."""
    lines = printed[printed.index("\nrun ") + 1 if "\nrun " in printed else 0 :].splitlines()
    return {line.split()[0]: line.split()[1] for line in lines[1 : 1 + len(NAMES)]}


@pytest.mark.slow
def test_a_sweep_of_six_in_which_one_fails_and_one_is_killed_goes_on_to_the_end(trained_sweep, tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    launcher = start("launch.sweep", *trained_sweep)
    training(launcher, "long-seed_0").kill()
    printed = launcher.communicate()[0]
    assert launcher.returncode == 2, printed
    assert "6 of 6 runs to do" in printed
    broken = {"long-seed_0": "stopped", "tuned-seed_0": "failed"}
    assert states(printed) == dict.fromkeys(NAMES, "done") | broken
    assert "long-seed_0 was killed by SIGKILL" in printed
    assert "tuned-seed_0 failed with exit code 1; the end of" in printed
    assert f"  error: {tmp_path}/elsewhere is not a run folder" in printed

    # As anyone sees it later.
    shown = run("launch.sweep", *trained_sweep, "--status")
    assert shown.returncode == 0
    assert states(shown.stdout) == states(printed)
    metrics = json.loads((tmp_path / "sweep" / "first-seed_0" / "metrics.json").read_text())
    line = next(line for line in shown.stdout.splitlines() if line.startswith("first-seed_0"))
    assert line.split()[2:5] == ["2/2", "12", "test"]
    assert line.split()[6] == f"{metrics['test/mean_iou']:.3f}"
    events = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "sweep")).Reload()
    assert set(events.Runs()) == {f"{name}/events" for name in NAMES if name != "tuned-seed_0"}

    # The cause is mended, and what is not done goes on.
    done = [tmp_path / "sweep" / name for name in NAMES if name not in broken]
    files = [path for folder in done for path in folder.rglob("*") if path.is_file() and path.name != "config.json"]
    before = {path: path.stat().st_mtime_ns for path in files}
    os.symlink(done[0], tmp_path / "elsewhere")
    again = run("launch.sweep", *trained_sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 6 runs to do" in again.stdout
    assert states(again.stdout) == dict.fromkeys(NAMES, "done")
    assert {path: path.stat().st_mtime_ns for path in files} == before
    log = (tmp_path / "sweep" / "long-seed_0" / "log.txt").read_text()
    assert log.count("fume_jax.main") == 2
    assert "going on after step" in log

    # Nothing is left to do, and nothing is trained by another config in its place.
    third = run("launch.sweep", *trained_sweep)
    assert third.returncode == 0
    assert "0 of 6 runs to do" in third.stdout
    changed = run("launch.sweep", *trained_sweep, "--set=optimizer.learning_rate=0.1")
    assert_refused(changed, "sweep/long-seed_0 holds a run of another config", "optimizer.learning_rate: 0.001 there")


@pytest.mark.slow
def test_ctrl_c_stops_runs_once_they_are_saved_and_what_a_killed_command_left_is_not_run_twice(trained_sweep, tmp_path):
    trained_sweep.append("--set=train.epochs=200")
    launcher = start("launch.sweep", *trained_sweep, group=True)
    training(launcher, "long-seed_0")
    second = run("launch.sweep", *trained_sweep)
    assert_refused(second, "Another process is launching")
    launcher.kill()  # the runs go on without it
    launcher.wait()
    launcher = start("launch.sweep", *trained_sweep, group=True)
    while "runs to do" not in (line := launcher.stdout.readline()):
        assert launcher.poll() is None, line
    assert line.startswith("4 of 6")
    time.sleep(1)
    # The whole group, as a terminal does, and the runs of the command before.
    os.killpg(launcher.pid, signal.SIGINT)
    printed = launcher.communicate()[0]
    assert launcher.returncode == 75, printed
    said = json.loads((tmp_path / "sweep" / "long-seed_0" / "status.json").read_text())
    assert (said["state"], said["exit_code"]) == ("stopped", 75)
    log = (tmp_path / "sweep" / "long-seed_0" / "log.txt").read_text()
    assert "the same command goes on from there" in log
    assert log.count("fume_jax.main") == 1
    assert states(printed)["uniform-seed_0"] == "queued"


def test_a_misspelt_key_is_refused_before_anything_is_written(sweep, tmp_path):
    result = run("launch.sweep", *sweep, "--set=optimizer.learning_rat=0.1")
    assert_refused(result, "run long-seed_0: ", 'Did you mean "learning_rate"')
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, words",
    [
        (["--nodes=2"], ["--nodes is for --backend=slurm, not local"]),
        (["--backend=slurm", "--gpus=3"], ["run long-seed_0: train.batch_size is 4, which 3 devices cannot share"]),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_written(sweep, tmp_path, options, words):
    assert_refused(run("launch.sweep", *sweep, *options), *words)
    assert not (tmp_path / "sweep").exists()


@pytest.mark.slow
def test_a_dry_run_shows_the_commands_and_writes_nothing(sweep, tmp_path):
    result = run("launch.sweep", *sweep, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("# 6 runs, 2 at once\n")
    assert result.stdout.count("-m fume_jax.main --config=configs/") == 6
    assert f"--config.data.sampling=uniform --config.seed=0 --workdir={tmp_path}/sweep/uniform-seed_0 " in result.stdout
    assert not (tmp_path / "sweep").exists()
