"""The command as a user runs it: sweeps that fail, are killed and stopped, and go on. Most trainings are fake ones."""

import json
import os
import signal
import subprocess
import sys

import pytest

from launch import local
from tests.commands import assert_refused, run, start
from tests.launch.six import ENDS, NAMES, arguments, states, training


@pytest.fixture
def sweep(tmp_path):
    return arguments(tmp_path)


@pytest.fixture
def fake_sweep(sweep, tmp_path):
    """Words of a command that runs this sweep with fake trainings; the long one waits until it is told to end."""
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "hold").touch()
    yield ["tests.launch.fake_training", "launch.sweep", *sweep]
    (tmp_path / "sweep" / "hold").unlink(missing_ok=True)  # what a test has left ends


@pytest.mark.slow
def test_a_sweep_in_which_one_run_fails_and_one_is_killed_goes_on_to_the_end(fake_sweep, tmp_path):
    launcher = start(*fake_sweep)
    training(launcher, "long-seed_0").kill()
    printed = launcher.communicate()[0]
    assert launcher.returncode == 2, printed
    assert "6 of 6 runs to do" in printed
    assert states(printed) == ENDS
    assert "long-seed_0 was killed by SIGKILL" in printed
    assert "tuned-seed_0 failed with exit code 1; the end of" in printed
    assert f"  error: {tmp_path}/elsewhere is not a run folder" in printed

    # As anyone sees it later.
    shown = run(*fake_sweep, "--status")
    assert shown.returncode == 0
    assert states(shown.stdout) == ENDS
    line = next(line for line in shown.stdout.splitlines() if line.startswith("first-seed_0"))
    assert line.split()[2:7] == ["2/2", "12", "test", "-", "0.625"]

    # The cause is mended, and what is not done goes on.
    done = [tmp_path / "sweep" / name for name, state in ENDS.items() if state == "done"]
    files = [path for folder in done for path in folder.rglob("*") if path.is_file() and path.name != "config.json"]
    before = {path: path.stat().st_mtime_ns for path in files}
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sweep" / "hold").unlink()
    again = run(*fake_sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 6 runs to do" in again.stdout
    assert states(again.stdout) == dict.fromkeys(NAMES, "done")
    assert {path: path.stat().st_mtime_ns for path in files} == before
    log = (tmp_path / "sweep" / "long-seed_0" / "log.txt").read_text()
    assert log.count("fume_jax.main") == 2
    assert "going on after step 6\n" in log

    # Nothing is left to do, and nothing is trained by another config in its place.
    third = run(*fake_sweep)
    assert third.returncode == 0
    assert "0 of 6 runs to do" in third.stdout
    changed = run(*fake_sweep, "--set=optimizer.learning_rate=0.1")
    assert_refused(changed, "sweep/long-seed_0 holds a run of another config", "optimizer.learning_rate: 0.001 there")


@pytest.mark.slow
def test_ctrl_c_stops_runs_once_they_are_saved_and_what_a_killed_command_left_is_not_run_twice(fake_sweep, tmp_path):
    fake_sweep.append("--set=train.epochs=200")
    launcher = start(*fake_sweep, group=True)
    training(launcher, "long-seed_0")
    training(launcher, "first-seed_0")
    assert_refused(run(*fake_sweep), "Another process is launching")
    launcher.kill()  # the runs go on without it
    launcher.wait()
    for number in (signal.SIGINT, signal.SIGHUP):  # they hear nothing of their terminal
        os.killpg(launcher.pid, number)
    launcher = start(*fake_sweep, group=True)
    while "runs to do" not in (line := launcher.stdout.readline()):
        assert launcher.poll() is None, line
    assert line.startswith("4 of 6")
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


@pytest.mark.slow
def test_real_runs_are_trained_and_scored_and_are_compared_by_tensorboard(tiny_dataset, tmp_path):
    from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer

    # The config, which every process of a run reads, also registers the tiny encoder.
    (tmp_path / "tiny.py").write_text(
        "import tests.tiny\nfrom configs import fume\n\ndef get_config():\n"
        "    config = fume.get_config('classification_only')\n    config.model.backbone = 'tiny'\n    return config\n"
    )
    (tmp_path / "two.py").write_text(
        f"from launch.plan import Sweep\n\ndef get_sweep():\n    return Sweep('{tmp_path}/tiny.py', seeds=(0, 1))\n"
    )
    small = ["--smoke", "--parallel=2", "--gpus=0", "--set=train.epochs=1", "--set=log.images=0"]
    folders = [f"--sweep={tmp_path}/two.py", f"--workdir={tmp_path}/sweep", f"--set=data.path={tiny_dataset}"]
    result = run("launch.sweep", *folders, *small)
    assert result.returncode == 0, result.stdout + result.stderr
    assert states(result.stdout) == {"seed_0": "done", "seed_1": "done"}
    for name in ("seed_0", "seed_1"):
        metrics = json.loads((tmp_path / "sweep" / name / "metrics.json").read_text())
        line = next(line for line in result.stdout.splitlines()[-2:] if line.startswith(name))
        assert line.split()[2:6] == ["1/1", "6", "test", "-"]
        assert line.split()[7] == f"{metrics['test/balanced_accuracy']:.3f}"
        assert "step 6 of 6" in (tmp_path / "sweep" / name / "log.txt").read_text()
    events = EventMultiplexer().AddRunsFromDirectory(str(tmp_path / "sweep")).Reload()
    assert set(events.Runs()) == {"seed_0/events", "seed_1/events"}


def test_a_damaged_status_is_told_and_the_sweep_is_not_started(sweep, tmp_path):
    for name in ("long-seed_0", "first-seed_0"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        (tmp_path / "sweep" / name / "status.json").write_bytes(b"\xff{")
    shown = run("launch.sweep", *sweep, "--status")
    assert shown.returncode == 2, shown.stderr
    assert states(shown.stdout) == dict.fromkeys(NAMES, "queued") | dict.fromkeys(NAMES[:2], "damaged")
    assert shown.stdout.count("status.json is damaged") == 2
    assert_refused(run("launch.sweep", *sweep), "long-seed_0/status.json is damaged")
    assert not (tmp_path / "sweep" / "first-seed_0" / "submitted.json").exists()


def test_jobs_do_not_hear_the_terminal_and_the_command_does():
    heard = []
    for number in (signal.SIGINT, signal.SIGHUP):
        previous = signal.signal(number, lambda number, _: heard.append(number))
        try:
            with local._ignore_terminal():
                os.kill(os.getpid(), number)
                job = f"import os; os.kill(os.getpid(), {number:d}); print('alive')"
                printed = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True).stdout
        finally:
            signal.signal(number, previous)
        assert printed == "alive\n"
    assert heard == [signal.SIGINT, signal.SIGHUP]


def test_a_misspelt_key_is_refused_before_anything_is_written(sweep, tmp_path):
    result = run("launch.sweep", *sweep, "--set=optimizer.learning_rat=0.1")
    assert_refused(result, "run long-seed_0: ", 'Did you mean "learning_rate"')
    assert not (tmp_path / "sweep").exists()


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


def test_a_dry_run_shows_the_commands_and_writes_nothing(sweep, tmp_path):
    result = run("launch.sweep", *sweep, "--dry-run")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("# 6 runs, 2 at once\n")
    assert result.stdout.count("-m fume_jax.main --config=fume:") == 6
    assert f"--config.data.sampling=uniform --config.seed=0 --workdir={tmp_path}/sweep/uniform-seed_0 " in result.stdout
    assert not (tmp_path / "sweep").exists()
