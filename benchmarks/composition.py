"""Adds to a report what forward pass and training step consist of, compiled for one device."""

import time

import jax

from benchmarks.kernels import OTHER, PARTS, count, kernels
from benchmarks.programs import COMPILER_OPTIONS, lower_forward, lower_step, one_device
from benchmarks.report import Report

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
