"""What a benchmark found, printed row by row as it comes and in tables at the end, and written as JSON and Markdown."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import flags

from benchmarks.account import Ceilings
from benchmarks.timing import Timing, table

OUTPUT = flags.DEFINE_string("output", None, "Folder for results.json and results.md.")
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "torch", "onnxruntime")


class Report:
    """Rows of results by the name of their table; a run that is cut short leaves those it has.

    What is written is `{"environment": {...}, "results": {table: [row, ...]}, "left_out": [why, ...]}`.
    """

    def __init__(self, output: str | None, **environment):
        """Prints where it runs; `environment` is told besides what every report tells."""
        self.found = {"environment": _environment() | environment, "results": {}, "left_out": []}
        self.failed = False
        self._folder = output and Path(output)
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)
        print(_described(self.found["environment"]), "\n", sep="", flush=True)

    def add(self, name: str, **row) -> None:
        """Adds a row of numbers and words to a table."""
        self.found["results"].setdefault(name, []).append(row)
        print(
            f"{name}:", ", ".join(f"{key.replace('_', ' ')} {_cell(value)}" for key, value in row.items()), flush=True
        )
        self._write()

    def state(self, **facts) -> None:
        """Tells more of where it runs."""
        self.found["environment"] |= facts
        self._write()

    def compare(self, name: str, timings: Mapping[str, Timing], batch_size: int, *, to: str) -> None:
        """Adds a row for each of some implementations of one thing, and its speed relative to one of them."""
        for implementation, timing in timings.items():
            self.add(
                name,
                batch=batch_size,
                implementation=implementation,
                ms=1e3 * timing.seconds,
                pairs_per_second=batch_size / timing.seconds,
                runs=timing.runs,
                **({"speed": timings[to].seconds / timing.seconds, "relative_to": to} if to in timings else {}),
            )

    @contextlib.contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Leaves out what fails, whatever the reason: one measurement is not to cost the others."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.failed = True
            self.leave_out(what, f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")

    def ceiling(self, dtype: str, measured: Ceilings) -> None:
        """Tells what the device can do at most."""
        self.state(
            **{f"gflops_of_{dtype}_products": round(measured.flops / 1e9)},
            gbytes_a_second_of_copies=round(measured.bandwidth / 1e9, 1),
        )

    def leave_out(self, what: str, why: str) -> None:
        """Says what was not measured."""
        self.found["left_out"].append(f"{what}: {why}")
        print(f"left out: {what}: {why}", flush=True)
        self._write()

    def finish(self) -> None:
        """Prints all tables, and the load that they were measured under."""
        self.found["environment"]["load_at_the_end"] = _load()
        self._write()
        print("\n" + self.markdown(), flush=True)

    def markdown(self) -> str:
        """Everything, as Markdown."""
        parts = [_described(self.found["environment"])]
        for name, rows in self.found["results"].items():
            columns = list(dict.fromkeys(key for row in rows for key in row))
            cells = [[_cell(row.get(column)) for column in columns] for row in rows]
            parts += [f"## {name}", table([column.replace("_", " ") for column in columns], cells)]
        parts += [f"Left out: {line}." for line in self.found["left_out"]]
        return "\n\n".join(parts)

    def _write(self):
        if self._folder:
            (self._folder / "results.json").write_text(json.dumps(self.found, indent=1) + "\n")
            (self._folder / "results.md").write_text(self.markdown() + "\n")


def _environment():
    versions = {}
    for library in LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            versions[library] = "not installed"
    return {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load_at_the_start": _load(),
        "python": platform.python_version(),
        **versions,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }


def _described(environment):
    return "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in environment.items())


def _load():
    """Processes that ran or waited for a core in the last minute, those of the benchmark included."""
    return round(os.getloadavg()[0], 1)


def _cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _cell(value):
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
