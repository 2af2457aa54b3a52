"""Timing of calls side by side."""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax

# A call that takes longer than this is run less often, but never fewer times than that.
LONG_SECONDS, FEWEST_RUNS = 1.0, 3
# Rounds that are not counted: the first compiles, in those after it memory finds its places.
WARM_UP = 3
# Before each run: threads of the one before it go on looking for work for a while.
PAUSE_SECONDS = 0.2


class Timing(NamedTuple):
    """Median seconds of a call, and of how many runs."""

    seconds: float
    runs: int


def alternate(calls: dict[str, Callable], *, repeats: int, steps: int = 1) -> dict[str, Timing]:
    """Times calls in turns, so that a change of the machine's pace meets all of them.

    Args:
      calls: by name; what one returns is waited for, by its own `block_until_ready` if it is no array. Its first runs,
        `WARM_UP` of them, are not counted.
      repeats: turns; a quarter of them if a run of any takes more than `LONG_SECONDS`.
      steps: calls of a run, the last of which is waited for: on an accelerator Python is to work ahead.
    """
    for call in [*calls.values()] * WARM_UP:
        jax.block_until_ready(call())
    times = {name: [] for name in calls}
    fewer = min(repeats, max(FEWEST_RUNS, repeats // 4))
    while calls and len(next(iter(times.values()))) < repeats:
        for name, call in calls.items():
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            for _ in range(steps):
                result = call()
            jax.block_until_ready(result)
            times[name].append((time.perf_counter() - start) / steps)
        if max(map(max, times.values())) * steps > LONG_SECONDS:
            repeats = fewer
    return {name: Timing(statistics.median(t), len(t)) for name, t in times.items()}


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
