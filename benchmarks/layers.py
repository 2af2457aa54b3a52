"""Where a program spends its time on this CPU, kernel by kernel, and what each would take at the machine's peak rates.

    python -m benchmarks.layers                                       # forward pass of one pair of 640x480
    python -m benchmarks.layers --program=training --batch_size=2

Kernels are timed by JAX's profiler on the thread that starts them, so those that wait for another, or run beside one,
have some of its time too. A kernel's bound is the longer of its matrix products at the rate of large ones, and of its
bytes at that of a copy; bytes that a cache holds may beat it.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
from absl import flags

from benchmarks import jax_baseline
from benchmarks.kernels import kernels
from benchmarks.measure import WARM_UP, measure_peak_rates
from benchmarks.report import Report
from benchmarks.suite import QUICK, SIZES
from fume_jax.runtime import cli
from fume_jax.runtime.malloc import keep_freed_memory

PROGRAMS = {"forward": jax_baseline.Inference, "training": jax_baseline.TrainingStep}
_PROGRAM = flags.DEFINE_enum("program", "forward", list(PROGRAMS), "What to measure.")
_BATCH = flags.DEFINE_integer("batch_size", 1, "Pairs that it takes.", lower_bound=1)
_TOP = flags.DEFINE_integer("top", 20, "Kernels to list, the slowest first.", lower_bound=1)
for name in ("output", "quick"):
    flags.declare_key_flag(name)


def main() -> int:
    """Measures one program; returns the exit code."""
    keep_freed_memory()  # as training does
    jax.config.update("jax_platforms", "cpu")
    batch = jax_baseline.random_batch(_BATCH.value, *SIZES[bool(QUICK.value)])
    report = Report(program=_PROGRAM.value, batch=_BATCH.value)
    measure(report, PROGRAMS[_PROGRAM.value](batch), 256 if QUICK.value else 2048, calls=10, top=_TOP.value)
    return report.finish()


def measure(report: Report, call: jax_baseline.Compiled, size: int, *, calls: int, top: int) -> None:
    """Adds the kernels of a program, its operations, and the whole; `size` is that of `measure_peak_rates`."""
    peak, found = measure_peak_rates("float32", size), kernels(call.compiled.as_text())
    for _ in range(WARM_UP):
        jax.block_until_ready(call())
    wall, busy = time.perf_counter(), time.process_time()
    for _ in range(calls):
        jax.block_until_ready(call())
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    times = kernel_seconds(call, calls)

    def add(table, own, **row):
        bound = sum(max(x.flops / peak.flops, x.nbytes / peak.memory_bytes) for x in own)
        work = {"gflop": sum(x.flops for x in own) / 1e9, "mbyte": sum(x.nbytes for x in own) / 1e6}
        report.add(table, **row, ms=1e3 * sum(times[x.name] for x in own), bound_ms=1e3 * bound, **work)

    rates = {"peak_gflops": peak.flops / 1e9, "peak_gbytes_per_second": peak.memory_bytes / 1e9}
    report.add("program", ms=1e3 * wall / calls, cores_busy=busy / wall, kernels=len(found), **rates)
    add("operations", found, operation="all", kernels=len(found))
    by_operation = Counter()
    for x in found:
        by_operation[x.operation] += times[x.name]
    for operation, _ in by_operation.most_common(top):
        own = [x for x in found if x.operation == operation]
        add("operations", own, operation=operation, kernels=len(own))
    for x in sorted(found, key=lambda x: -times[x.name])[:top]:
        add("kernels", [x], part=x.part, backward=x.backward, operation=x.operation, result=x.shape)


def kernel_seconds(call: Callable, calls: int) -> Counter[str]:
    """Returns the seconds that each kernel takes in a call by its name, the mean of some calls."""
    options, seconds = jax.profiler.ProfileOptions(), Counter()
    options.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=options):
            for _ in range(calls):
                jax.block_until_ready(call())
        (path,) = Path(folder).rglob("*.xplane.pb")
        for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
            for event in (event for line in plane.lines for event in line.events):
                seconds[event.name] += 1e-9 * event.duration_ns / calls
    return seconds


if __name__ == "__main__":
    cli.run(main)
