"""A sweep of six runs, two at once, and how its tests look at it."""

import contextlib
import os
import time

import psutil

SWEEP = """
from launch.plan import Sweep

def get_sweep():
    return Sweep(
        config="fume:multi_task",
        entries={{
            "long": {{"train.epochs": 12}},
            "first": {{}},
            "tuned": {{"init_from": "{folder}/elsewhere"}},
            "ch4": {{"model.gas": "ch4"}},
            "other": {{"config": "fume:early_fusion"}},
            "uniform": {{"data.sampling": "uniform"}},
        }},
    )
"""
NAMES = [f"{entry}-seed_0" for entry in ("long", "first", "tuned", "ch4", "other", "uniform")]
# Ends of the runs of the first start, in which `long` is killed and there is no run folder `elsewhere` yet.
ENDS = dict.fromkeys(NAMES, "done") | {"long-seed_0": "stopped", "tuned-seed_0": "failed"}


def arguments(folder):
    """Writes the sweep; arguments of the command that runs it in the folder `sweep`."""
    (folder / "six.py").write_text(SWEEP.format(folder=folder))
    return [f"--sweep={folder}/six.py", f"--workdir={folder}/sweep", "--smoke", "--parallel=2", "--gpus=0"]


def training(launcher, name):
    """The process that trains a run, once it has saved a step of it."""

    def has_saved(words):
        workdir = next((word for word in words if word.endswith(f"/{name}")), None)
        if not workdir or "fume_jax.main" not in words:
            return False
        steps = os.path.join(workdir.removeprefix("--workdir="), "checkpoints")
        return os.path.isdir(steps) and any(step.isdigit() for step in os.listdir(steps))

    return child(launcher, has_saved)


def child(launcher, is_meant, seconds=300):
    """The process that a launcher has started, once it is there, of whose command line `is_meant` is true."""
    deadline = time.time() + seconds
    while time.time() < deadline:
        for process in psutil.Process(launcher.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if is_meant(process.cmdline()):
                    return process
        assert launcher.poll() is None, launcher.communicate()[0]
        time.sleep(0.1)
    raise AssertionError("the process that is meant did not come")


def states(printed):
    """State of each run in the table, which is printed last."""
    table = printed[printed.index("\nrun ") + 1 if "\nrun " in printed else 0 :].split("\n\n")[0]
    return dict(line.split()[:2] for line in table.splitlines()[1:])
