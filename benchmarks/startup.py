"""Seconds from the shell to the first training step: nothing compiled yet, compiled before, and going on with a run.

    python -m benchmarks.startup

Runs the command that trains in processes of its own, with an empty folder of compiled programs and then again with what
the first one left; prints medians. What comes after the first line, imports being done, goes on side by side, so the
parts add up to more than the whole.
"""

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from benchmarks.timing import table

_CONFIG = flags.DEFINE_string("config", "configs/demo.py", "Config that is trained.")
_DATA = flags.DEFINE_string("data", "data/synthetic_ogi/demo/2.0.0", "Prepared dataset.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Starts of each kind.", lower_bound=1)

# What JAX says of the work on a program, and the column it is added up in.
WORK = {
    "Finished tracing": "tracing",
    "Finished jaxpr to MLIR module conversion": "lowering",
    "Finished XLA compilation": "compiling or reading",
}
COLUMNS = ["first step", "first line", *WORK.values()]


def start(workdir: Path, programs: Path, *, stop: bool = False) -> dict[str, float]:
    """Seconds of one start up to its first step, by `COLUMNS`; ends it there, with `stop` leaving a checkpoint."""
    command = [sys.executable, "-u", "-m", "fume_jax.main", f"--config={_CONFIG.value}", f"--workdir={workdir}"]
    command += [f"--config.data.path={_DATA.value}", "--config.log.every_steps=1"]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(programs),
        "JAX_DEBUG_LOG_MODULES": "jax._src.dispatch",
    }
    seconds, lines = dict.fromkeys(COLUMNS, 0.0), []
    begin = time.perf_counter()
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, **pipe) as process:
        for line in process.stdout:
            lines.append(line)
            if " device(s)" in line:
                seconds["first line"] = time.perf_counter() - begin
            elif re.search(r", step \d+ of ", line):
                seconds["first step"] = time.perf_counter() - begin
                process.send_signal(signal.SIGTERM if stop else signal.SIGKILL)
                break
            for said, column in WORK.items():
                # Of the two programs, not of the functions inside them.
                if said in line and re.search(r"\b(train_step|create)\b", line):
                    seconds[column] += float(re.search(r"in ([\d.]+) sec", line)[1])
        lines += process.stdout
    if not seconds["first step"]:
        sys.exit("".join(lines))
    return seconds


def main(_) -> None:
    starts = {"nothing compiled": [], "compiled before": [], "going on": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(_REPEATS.value):
            workdir, programs = Path(folder) / f"run{i}", Path(folder) / f"programs{i}"
            starts["nothing compiled"].append(start(Path(folder) / f"first{i}", programs))
            starts["compiled before"].append(start(workdir, programs, stop=True))
            starts["going on"].append(start(workdir, programs))
    rows = [
        [name, *(f"{statistics.median(seconds[column] for seconds in all_of):.1f}" for column in COLUMNS)]
        for name, all_of in starts.items()
    ]
    print(f"{_CONFIG.value}, {os.cpu_count()} cores, seconds")
    print(table(["start", *COLUMNS], rows))


if __name__ == "__main__":
    app.run(main)
