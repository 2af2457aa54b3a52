"""Results of a benchmark: rows of tables, printed as they come and as tables at the end, and written as JSON."""

import importlib.metadata
import json
import math
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from absl import flags

from fume_jax.runtime.errors import DONE, PARTLY_DONE

_OUTPUT = flags.DEFINE_string("output", None, "Folder that results.json is written to, lists of rows by table.")


class Report:
    """Rows by the name of their table; a run that is cut short leaves those it has."""

    def __init__(self, seconds: float = math.inf, **environment):
        """Adds where the benchmark runs; `attempt` starts nothing after so many seconds."""
        self.results, self._failed, self._deadline = {}, False, time.monotonic() + seconds
        installed = {distribution.name: distribution.version for distribution in importlib.metadata.distributions()}
        self.add(
            "environment",
            cpu=Path("/proc/cpuinfo").read_text().partition("model name\t: ")[2].partition("\n")[0],
            cores=len(os.sched_getaffinity(0)),
            load=os.getloadavg()[0],  # processes that ran or waited for a core in the last minute
            **{name: installed.get(name, "not installed") for name in ("jax", "jaxlib", "flax", "torch")},
            **environment,
        )

    def add(self, name: str, /, **row) -> None:
        """Adds a row of numbers and words to a table."""
        self.results.setdefault(name, []).append(row)
        print(f"{name}: {', '.join(f'{key} {_cell(value)}' for key, value in row.items())}", flush=True)
        if _OUTPUT.value:
            Path(_OUTPUT.value).mkdir(parents=True, exist_ok=True)
            (Path(_OUTPUT.value) / "results.json").write_text(json.dumps(self.results, indent=1) + "\n")

    def attempt(self, name: str, measure: Callable, *args):
        """Returns what a function returns; None if there is no time left or it fails, so that others are measured."""
        if time.monotonic() > self._deadline:
            return self.add("left out", name=name, reason="out of time")
        try:
            return measure(*args)
        except Exception as error:
            traceback.print_exc()
            self._failed = True
            return self.add("left out", name=name, reason=f"{type(error).__name__}: {error}"[:200])

    def finish(self) -> int:
        """Prints all tables; returns the exit code, `PARTLY_DONE` if a measurement failed."""
        for name, rows in self.results.items():
            print(f"\n## {name}\n\n{table(rows)}", flush=True)
        return PARTLY_DONE if self._failed else DONE


def table(rows: Sequence[Mapping]) -> str:
    """Renders rows as a Markdown table with a column for every key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value):
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)
