"""What a compiler makes of forward pass and training step for a device that need not be there.

    python -m benchmarks.compiled --config=fume --platform=cuda --config.model.dtype=bfloat16   # one H100
    python -m benchmarks.compiled --config=fume --platform=tpu --config.model.dtype=bfloat16    # one TPU v5e
    python -m benchmarks.compiled --config=fume --platform=cpu                                  # this CPU

Counts kernels by kind and by part, bytes, operations and memory. The compilers come with pip install -e ".[compilers]";
a program takes them minutes. Seconds are an ESTIMATE: nothing runs.
"""

import time

import jax
from absl import flags

from benchmarks.kernels import OTHER, PARTS, count, kernels
from benchmarks.programs import COMPILER_OPTIONS, CONFIG, TOPOLOGY, lower_forward, lower_step, one_device
from benchmarks.report import Report
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_PLATFORM = flags.DEFINE_enum("platform", None, ["cuda", "tpu", "cpu"], "Compiler: for an H100, a TPU or this CPU.")
_BATCH = flags.DEFINE_integer("batch_size", 8, "Pairs of the training step.", lower_bound=1)
_FORWARD_BATCH = flags.DEFINE_integer("forward_batch_size", 1, "Pairs of the forward pass.", lower_bound=1)
_PROGRAMS = flags.DEFINE_list("programs", ["forward", "training"], "Which of the two to compile.")
_HLO = flags.DEFINE_string("hlo", None, "Beginning of a path that the text of each program is written to.")
flags.mark_flags_as_required(["config", "platform"])
for name in ("output", "config", "topology"):
    flags.declare_key_flag(name)
LOWER = {"forward": lower_forward, "training": lower_step}
SHOWN = ("fusion", "matmul", "convolution", "copy")
# Seconds that a launch is assumed to cost, least and most, and bytes a second of the memory as published.
LAUNCH_SECONDS = {"cuda": (2e-6, 5e-6)}
BANDWIDTHS = {"NVIDIA H100 80GB HBM3": 3.35e12, "TPU v5 lite": 819e9, "TPU v6 lite": 1640e9}
HERTZ = {"TPU v5 lite": 1.5e9}  # of the cycles that its compiler estimates


def measure(report: Report, name: str, config, mesh: jax.sharding.Mesh, platform: str, hlo: str | None = None) -> None:
    """Compiles one of the programs in `LOWER` for a mesh of one device, and adds what it consists of."""
    start = time.perf_counter()
    compiled = LOWER[name](config, mesh).compile(COMPILER_OPTIONS.get(platform))
    seconds, text, device = time.perf_counter() - start, compiled.as_text(), mesh.devices.flat[0].device_kind
    if hlo:
        with open(f"{hlo}{name}.txt", "w") as file:
            file.write(text)
    # Operations are the same on all devices; some compilers do not count them.
    flops = LOWER[name](config, one_device("cpu", "")).cost_analysis()["flops"]
    found, memory = kernels(text), compiled.memory_analysis()
    nbytes = sum(kernel.nbytes for kernel in found)
    peak = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    peak += memory.output_size_in_bytes - memory.alias_size_in_bytes
    by_kind = count(found, "kind")
    report.add(
        "programs",
        program=name,
        kernels=len(found),
        copies=by_kind.get("copy", 0),
        gflop=flops / 1e9,
        gbyte=nbytes / 1e9,
        peak_mb=peak / 1e6,
        compile_seconds=seconds,
    )
    for kind, number in by_kind.items():
        report.add("kernels by kind", program=name, kind=kind, kernels=number)
    for part in (*PARTS, OTHER):
        of_part = [kernel for kernel in found if kernel.part == part]
        if of_part:
            backward = sum(kernel.backward for kernel in of_part)
            row = {"program": name, "part": part, "forward": len(of_part) - backward, "backward": backward}
            row |= {kind: number for kind, number in count(of_part, "kind").items() if kind in SHOWN}
            row["gbyte"] = sum(kernel.nbytes for kernel in of_part) / 1e9
            cycles = sum(kernel.cycles for kernel in of_part)
            report.add("kernels by part", **row, **({"million_cycles": cycles / 1e6} if cycles else {}))
    row = {"memory_ms": 1e3 * nbytes / BANDWIDTHS[device]} if device in BANDWIDTHS else {}
    if platform in LAUNCH_SECONDS:
        least, most = (1e3 * len(found) * seconds for seconds in LAUNCH_SECONDS[platform])
        row |= {"launches_ms_least": least, "launches_ms_most": most}
    if device in HERTZ:
        row["cycles_ms"] = 1e3 * sum(kernel.cycles for kernel in found) / HERTZ[device]
    if row:
        report.add("time, estimated", program=name, **row)


def main() -> int:
    """Compiles the programs one after the other; returns the exit code."""
    try:
        config = CONFIG.value
    except cli.FLAG_ERRORS as error:
        raise UserError(cli.message(error)) from error
    if unknown := set(_PROGRAMS.value) - set(LOWER):
        raise UserError(f"--programs knows no {', '.join(sorted(unknown))}; choose of: {', '.join(LOWER)}.")
    config.train.batch_size, config.eval.batch_size = _BATCH.value, _FORWARD_BATCH.value
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # seconds are those of a compiler
    mesh = one_device(_PLATFORM.value, TOPOLOGY.value or "v5e:2x2")
    size = f"{config.data.width}x{config.data.height}"
    batches = {"training_batch": _BATCH.value, "forward_batch": _FORWARD_BATCH.value}
    described = {"model": config.model.name, "dtype": config.model.dtype, "size": size, **batches}
    report = Report(compiled_for=mesh.devices.flat[0].device_kind, **described)
    for name in _PROGRAMS.value:
        report.attempt(name, measure, report, name, config, mesh, _PLATFORM.value, _HLO.value)
    return report.finish()


if __name__ == "__main__":
    cli.run(main)
