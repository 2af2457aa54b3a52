"""Seconds from the shell to the first training step: nothing compiled yet, compiled before, and resuming a run."""

import os
import statistics
import sys
import tempfile
import time
from signal import SIGKILL, SIGTERM, Signals
from subprocess import PIPE, STDOUT, Popen

from absl import flags

from benchmarks.report import Report
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_DATA = flags.DEFINE_string("data", "data/synthetic_ogi/demo/3.0.0", "Prepared dataset, trained on by the config demo.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Starts of each kind; medians are reported.", lower_bound=1)
flags.declare_key_flag("output")
# Folder of the run, and the signal that ends it after its first step: SIGTERM leaves a checkpoint.
STARTS = {"nothing compiled": ("first", SIGKILL), "compiled before": ("run", SIGTERM), "resuming": ("run", SIGKILL)}


def start(workdir: str, programs: str, end: Signals) -> float:
    """Trains up to the first step, compiled programs being kept in a folder; returns seconds."""
    command = [sys.executable, "-u", "-m", "fume_jax.main", "--config=demo", f"--workdir={workdir}"]
    command += [f"--config.data.path={_DATA.value}", "--config.log.every_steps=1"]
    environment, output, begin = os.environ | {"JAX_COMPILATION_CACHE_DIR": programs}, "", time.perf_counter()
    with Popen(command, env=environment, stdout=PIPE, stderr=STDOUT, text=True) as process:
        for line in process.stdout:
            output += line
            if ", step " in line:
                seconds = time.perf_counter() - begin
                process.send_signal(end)
                process.communicate()
                return seconds
    raise UserError(f"The run ended before its first step:\n{output}")


def main() -> int:
    """Measures starts of all kinds in turns; returns the exit code."""
    report, seconds = Report(), {name: [] for name in STARTS}
    for _ in range(_REPEATS.value):
        with tempfile.TemporaryDirectory() as folder:
            for name, (run, end) in STARTS.items():
                seconds[name].append(start(f"{folder}/{run}", f"{folder}/programs", end))
    for name in STARTS:
        report.add("startup", start=name, seconds_to_first_step=statistics.median(seconds[name]))
    return report.finish()


if __name__ == "__main__":
    cli.run(main)
