"""Times calls side by side, and compares a compiled function with what bounds it.

The work that XLA counts takes no less time than its operations need at the peak rate of matrix products, nor than its
bytes need at the bandwidth of memory: its roofline (Williams, Waterman, Patterson 2009, doi:10.1145/1498765.1498785).
"""

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

WARM_UP = 3  # rounds that are not counted: the first compiles, and after it memory is still being placed
PAUSE_SECONDS = 0.2  # before each run: threads of the one before it go on looking for work for a while


class Work(NamedTuple):
    """Floating-point operations of one device, and bytes between it and its memory; as peak rates, a second."""

    flops: float
    memory_bytes: float


def alternate(calls: Mapping[str, Callable], *, repeats: int, steps: int = 1) -> dict[str, float]:
    """Times calls in turns, so that a change of the machine's speed meets all of them; returns median seconds."""
    for call in [*calls.values()] * WARM_UP:
        jax.block_until_ready(call())
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            for _ in range(steps):  # of which the last is waited for: on an accelerator Python works ahead
                result = call()
            jax.block_until_ready(result)
            times[name].append((time.perf_counter() - start) / steps)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def count_work(compiled: jax.stages.Compiled, lowered: jax.stages.Lowered | None = None) -> Work:
    """Returns the work that XLA counts; bytes are those of each kernel, whatever a cache saves of them."""
    # Operations inside a library's kernel are unknown once it was chosen; then those of `lowered` are more.
    # A GPU's compiler says nothing of a program that it has not compiled, or that no GPU is there for.
    cost, before = compiled.cost_analysis() or {}, (lowered and lowered.cost_analysis()) or {}
    return Work(max(cost.get("flops", 0.0), before.get("flops", 0.0)), cost.get("bytes accessed", 0.0))


@functools.cache
def measure_peak_rates(dtype: str, size: int) -> Work:
    """Measures products of square matrices of `size` rows, and copies of 16 in float32, more than caches hold."""
    matrix, array = jnp.ones((size, size), dtype), jnp.ones((16, size, size))
    product = functools.partial(jax.jit(jnp.matmul), matrix, matrix)
    # In place: new memory would be paid for page by page.
    add_one = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copy():
        nonlocal array
        array = add_one(array)
        return array

    seconds = alternate({"product": product, "copy": copy}, repeats=10)
    return Work(2 * size**3 / seconds["product"], 2 * array.nbytes / seconds["copy"])


def roofline(work: Work, peak: Work, seconds: float) -> dict[str, float | str]:
    """Returns the bound of a function that took so many seconds, and the fraction of it that was reached."""
    bound, bound_by = max((work.flops / peak.flops, "flops"), (work.memory_bytes / peak.memory_bytes, "bytes"))
    counts = {"gflop": work.flops / 1e9, "gbyte": work.memory_bytes / 1e9}
    rates = {"peak_gflops": peak.flops / 1e9, "peak_gbytes_per_second": peak.memory_bytes / 1e9}
    return counts | rates | {"bound_by": bound_by, "bound_ms": 1e3 * bound, "fraction_of_bound": bound / seconds}
