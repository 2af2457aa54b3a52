"""What a compiled function does, counted by XLA, against what the machine can do, measured.

A function can take no less than its operations at the machine's rate of matrix products, nor than its bytes at the
machine's memory bandwidth; the longer of the two bounds it (the roofline of Williams, Waterman and Patterson,
doi:10.1145/1498765.1498785).
"""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Work:
    """What one device does: floating-point operations, and bytes between it and its memory."""

    flops: float
    memory_bytes: float


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What a device can do a second: floating-point operations of matrix products, bytes of a copy."""

    flops: float
    bandwidth: float


def work_of(compiled: jax.stages.Compiled, lowered: jax.stages.Lowered | None = None) -> Work:
    """As XLA counts it.

    Operations inside a library's kernel are unknown once it was chosen, so those of the program before that, `lowered`,
    count if they are more. Bytes are those that each kernel reads and writes, whatever a cache saves of them.
    """
    cost = compiled.cost_analysis()
    before = lowered.cost_analysis() if lowered else {}
    return Work(max(cost["flops"], before.get("flops", 0.0)), cost["bytes accessed"])


def account(work: Work, ceilings: Ceilings, seconds: float) -> dict[str, float | str]:
    """What bounds a function that took so many seconds, and the fraction of that ceiling that it reached."""
    by_flops, by_bytes = work.flops / ceilings.flops, work.memory_bytes / ceilings.bandwidth
    return {
        "gflop": work.flops / 1e9,
        "gbyte": work.memory_bytes / 1e9,
        "ms_by_flops": 1e3 * by_flops,
        "ms_by_bytes": 1e3 * by_bytes,
        "bound_by": "flops" if by_flops > by_bytes else "bytes",
        "ms": 1e3 * seconds,
        "fraction_of_ceiling": max(by_flops, by_bytes) / seconds,
    }


@functools.cache
def ceilings(dtype: str, size: int, megabytes: int, repeats: int = 10) -> Ceilings:
    """Measures what the default device can do: the best of some runs, since whatever else runs only takes away.

    Args:
      dtype: of the matrices.
      size: rows and columns of them.
      megabytes: of the array that is copied, more than caches hold.
      repeats: runs.
    """
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    # Into itself: new memory would be paid for page by page.
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    array = jnp.ones((megabytes, 250_000), jnp.float32)
    product_times, copy_times = [], []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        between = time.perf_counter()
        array = copy(array).block_until_ready()
        product_times.append(between - start)
        copy_times.append(time.perf_counter() - between)
    return Ceilings(2 * size**3 / min(product_times[1:]), 2 * array.nbytes / min(copy_times[1:]))
