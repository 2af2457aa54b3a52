"""A suite of benchmarks: parts that are measured one after the other, most of them comparisons with PyTorch."""

import dataclasses
import functools
import importlib
import time
from collections.abc import Callable, Mapping, Sequence

import jax
from absl import flags

from benchmarks import jax_baseline
from benchmarks.measure import alternate, count_work, measure_peak_rates, roofline
from benchmarks.report import Report
from fume_jax.models.backbones import BACKBONES
from fume_jax.runtime.errors import UserError

QUICK = flags.DEFINE_bool("quick", None, "Small frames and few runs, to try a suite; that for GPUs does so on a CPU.")
_ONLY = flags.DEFINE_list("only", None, "Parts to measure; all if not given. A wrong name lists them.")
_BACKBONE = flags.DEFINE_enum("backbone", None, list(BACKBONES), "Encoder to compare; that of FUME if not given.")
flags.declare_key_flag("output")
SIZES = {True: (96, 128), False: (480, 640)}  # height and width of the frames of a quick suite, and of others


@dataclasses.dataclass(frozen=True)
class Suite:
    """One run of a suite; a quick one has small frames and batches, few runs and the first variants only."""

    report: Report
    quick: bool
    jax_variants: Mapping[str, Mapping]  # options of the baseline's calls by name
    torch_variants: Mapping[str, Mapping]  # ratios of time are to the first
    exported_variants: Mapping[str, Mapping] = dataclasses.field(default_factory=dict)  # of inference alone

    def run(self, parts: Mapping[str, Callable], comparisons: Sequence[tuple[str, int]]) -> int:
        """Measures the comparisons and parts that `--only` names, or all in this order; returns the exit code."""
        compare = Suite.compare
        parts = {f"{task}-{n}": functools.partial(compare, task=task, batch_size=n) for task, n in comparisons} | parts
        if unknown := set(_ONLY.value or ()) - set(parts):
            raise UserError(f"--only knows no {', '.join(sorted(unknown))}; choose of: {', '.join(parts)}.")
        for name in _ONLY.value or parts:
            self.report.attempt(name, parts[name], self)
        return self.report.finish()

    def compare(self, task: str, batch_size: int) -> None:
        """Times `Inference` or `TrainingStep` of the baselines side by side, and adds JAX's rooflines."""
        batch_size = min(batch_size, 2) if self.quick else batch_size
        batch, calls = jax_baseline.random_batch(batch_size, *SIZES[self.quick]), {}
        # PyTorch first: it leaves memory that it no longer uses to others only when it is asked for more.
        libraries = {"torch": self.torch_variants, "jax": self.jax_variants}
        libraries |= {"exported": self.exported_variants} if self.exported_variants and task == "Inference" else {}
        for library, variants in libraries.items():
            module = self.report.attempt(library, importlib.import_module, f"benchmarks.{library}_baseline")
            for name, options in list(variants.items())[: 1 if self.quick else None] if module else ():
                create = functools.partial(getattr(module, task), batch, backbone=_BACKBONE.value, **options)
                if call := self.report.attempt(f"{task}-{batch_size}, {name}", _start, create):
                    calls[name] = call
        # Several calls are under way at a time on an accelerator, as in training; of one pair the latency counts.
        on_cpu = jax.default_backend() == "cpu"
        steps = 1 if on_cpu or batch_size == 1 else max(1, 80 // batch_size)
        seconds = alternate(calls, repeats=2 if self.quick else 10, steps=steps)
        baseline = seconds.get(next(iter(self.torch_variants)))
        for name, call in calls.items():
            row = {"batch": batch_size, "call": name, "ms": 1e3 * seconds[name]}
            ratio = baseline and seconds[name] / baseline
            speed = {"pairs_per_second": batch_size / seconds[name], "time_ratio": ratio}
            self.report.add(task, **row, **speed, **call.first)
            if isinstance(call, jax_baseline.Compiled):
                peak = measure_peak_rates(call.dtype, 256 if self.quick else 2048 if on_cpu else 8192)
                found = roofline(count_work(call.compiled, call.lowered), peak, seconds[name])
                self.report.add("roofline", task=task, **row, **found)


def _start(create):
    """Creates a call, runs it once, and notes in `first` the seconds and the device's memory that took."""
    start = time.perf_counter()
    call = create()
    jax.block_until_ready(call())
    call.first = {"first_call_seconds": time.perf_counter() - start, "device_mb": call.memory_bytes / 1e6}
    return call
