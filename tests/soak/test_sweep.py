"""Sweeps of real trainings that fail, are killed and stopped, and go on."""

import json
import os
import signal
import time

import pytest

from tests.commands import assert_refused, run, start
from tests.launch.six import ENDS, NAMES, arguments, states, training

pytestmark = pytest.mark.soak


@pytest.fixture
def sweep(tmp_path, tiny_dataset):
    """Words of a command: six real runs, one of which fails until there is a run folder `elsewhere`."""
    return ["launch.sweep", *arguments(tmp_path), f"--set=data.path={tiny_dataset}"]


def test_a_sweep_in_which_one_run_fails_and_one_is_killed_goes_on_to_the_end(sweep, tmp_path):
    launcher = start(*sweep)
    training(launcher, "long-seed_0").kill()
    printed = launcher.communicate()[0]
    assert launcher.returncode == 2, printed
    assert states(printed) == ENDS
    assert "long-seed_0 was killed by SIGKILL" in printed
    assert f"  error: {tmp_path}/elsewhere is not a run folder" in printed

    done = [tmp_path / "sweep" / name for name, state in ENDS.items() if state == "done"]
    files = [path for folder in done for path in folder.rglob("*") if path.is_file() and path.name != "config.json"]
    before = {path: path.stat().st_mtime_ns for path in files}
    os.symlink(done[0], tmp_path / "elsewhere")
    again = run(*sweep)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 of 6 runs to do" in again.stdout
    assert states(again.stdout) == dict.fromkeys(NAMES, "done")
    assert {path: path.stat().st_mtime_ns for path in files} == before
    log = (tmp_path / "sweep" / "long-seed_0" / "log.txt").read_text()
    assert log.count("fume_jax.main") == 2
    # Whatever the last saved step is, it is the first thing that the second start says of steps.
    assert "after step" in log[log.rindex("fume_jax.main") :].split("epoch")[0]


def test_ctrl_c_stops_runs_once_they_are_saved_and_what_a_killed_command_left_is_not_run_twice(sweep, tmp_path):
    sweep.append("--set=train.epochs=200")
    launcher = start(*sweep, group=True)
    training(launcher, "long-seed_0")
    assert_refused(run(*sweep), "Another process is launching")
    launcher.kill()  # the runs go on without it
    launcher.wait()
    launcher = start(*sweep, group=True)
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
    assert "the same command" in log
    assert log.count("fume_jax.main") == 1
    assert states(printed)["uniform-seed_0"] == "queued"
