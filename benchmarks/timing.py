"""Timing of compiled functions side by side."""

import statistics
import time
from collections.abc import Callable

import jax


def alternate(calls: dict[str, Callable], *, repeats: int) -> dict[str, float]:
    """Median seconds of each call, taken in turns so that a change of the machine's pace meets all of them.

    A call returns arrays that are waited for; its first run, which compiles, is not counted.
    """
    for call in calls.values():
        jax.block_until_ready(call())
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def table(header: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
