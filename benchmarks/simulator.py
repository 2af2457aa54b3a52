"""How fast the embedded dataset is rendered, on all cores, writing not included.

    python -m benchmarks.simulator

Renders the first recordings of `demo` (two frames each) and of `published` (seven frames and their copies) that hold
both gases; prints two-gas frames a second, the median over turns.
"""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import statistics
import time

import cv2
from absl import app, flags

from benchmarks.timing import table
from datasets.synthetic_ogi.recording import render
from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi

_REPEATS = flags.DEFINE_integer("repeats", 5, "Turns.", lower_bound=1)
_RECORDINGS = flags.DEFINE_integer("recordings", 40, "Rendered in a turn.", lower_bound=1)
SIZES = ((120, 160), (240, 320), (480, 640))


def main(_) -> None:
    context = multiprocessing.get_context("spawn")
    cases = [(name, *size) for name in ("demo", "published") for size in SIZES]
    speeds = {case: [] for case in cases}
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context, cv2.setNumThreads, (1,)) as pool:
        list(pool.map(_frames, [_plans("demo", 48, 64)[0]] * os.cpu_count()))  # starts the workers
        for _ in range(_REPEATS.value):
            for case in cases:
                start = time.perf_counter()
                frames = sum(pool.map(_frames, _plans(*case)))
                speeds[case].append(frames / (time.perf_counter() - start))
    rows = [[name, f"{w}x{h}", f"{statistics.median(speeds[name, h, w]):.0f}"] for name, h, w in cases]
    print(f"{os.cpu_count()} cores\n")
    print(table(["dataset", "size", "two-gas frames a second"], rows))


def _plans(name, height, width):
    plans = [p for p in SyntheticOgi.builder_configs[name].plan()["train"] if len(p.gases) == 2]
    return [dataclasses.replace(p, height=height, width=width) for p in plans[: _RECORDINGS.value]]


def _frames(plan):
    return len(render(plan))


if __name__ == "__main__":
    app.run(main)
