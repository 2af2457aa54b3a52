"""Collectives of a training step, counted in the compiled program, and an estimate of what they cost at scale.

    python -m benchmarks.scaling --config=fume                      # compiler for CPU, 8 devices: a minute
    python -m benchmarks.scaling --config=fume --topology=v5e:2x4   # compiler for TPU, pip install -e ".[tpu]"

Each device takes `config.train.batch_size` pairs. The efficiency of weak scaling is an ESTIMATE from published figures
under the assumptions of docs/distributed.md; in brackets it is that with latencies doubled and halved.
"""

import itertools
import os
from collections.abc import Mapping
from typing import NamedTuple

import jax
from absl import flags

from benchmarks.collectives import KINDS, collectives, count_bytes
from benchmarks.measure import Work, count_work
from benchmarks.programs import CONFIG, TOPOLOGY, lower_step, tpu_mesh
from benchmarks.report import Report
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import create_mesh

flags.mark_flag_as_required("config")
for name in ("output", "config", "topology"):
    flags.declare_key_flag(name)


class Machine(NamedTuple):
    """Published figures of one kind of device and its network."""

    peak: Work  # a second, of float32 arrays at the default precision of matrix products
    bandwidth: float  # bytes a second that a device can send to others
    latencies: Mapping[int, float]  # seconds of a small all-reduce by number of devices

    def efficiency(self, work: Work, devices: int, count: int, nbytes: int, latency_factor: float = 1.0) -> float:
        """Returns the share of a step that is not spent on `count` all-reduces, one after the other."""
        compute = max(work.flops / self.peak.flops, work.memory_bytes / self.peak.memory_bytes)
        transfer = 2 * (devices - 1) / devices * nbytes / self.bandwidth
        return compute / (compute + transfer + count * latency_factor * self.latencies[devices])


# NCCL calculates the latency of its tree and LL protocol (src/graph/tuning.cc of 2.28) as 6.8 us to begin, 0.6 us a
# step by NVLink and 5.0 us a step by network, up the tree and down again: 7 and 0, 3, 7 steps.
_NCCL = {8: 15.2e-6, 64: 45.2e-6, 1024: 85.2e-6}
# 1 us a hop, and 5 us by which a measured exchange of 3 hops took longer (8 us on v5e; Austin et al., How to Scale Your
# Model, 2025, jax-ml.github.io/scaling-book/sharding): 4, 14 and 16 hops there and back along both sides of 2x4, 8x8
# and 16x16, whose sides are rings. Between slices of 256 another 100 us, which is assumed: nothing is published.
_TPU = {8: 13e-6, 64: 33e-6, 1024: 137e-6}
# H100: NVIDIA's data sheet of the SXM module; TF32 without sparsity. A node of 8 (DGX H100) sends 8 times 400 Gb/s,
# which is less than the 450 GB/s each way of NVLink inside it.
# TPU: cloud.google.com/tpu/docs/v5e and v6e; products of float32 arrays are one pass of bfloat16. Half of the 1,600 and
# 3,584 Gb/s that a chip has to its neighbours is counted: slices smaller than 16x16 are no rings.
MACHINES = {
    "H100": Machine(Work(494.5e12, 3.35e12), 400e9, _NCCL),
    "TPU v5e": Machine(Work(197e12, 819e9), 100e9, _TPU),
    "TPU v6e": Machine(Work(918e12, 1640e9), 224e9, _TPU),
}


def main() -> int:
    """Compiles the step and prints what it exchanges; returns the exit code."""
    try:
        config = CONFIG.value  # parsed here, unless --config is given
    except cli.FLAG_ERRORS as error:
        raise UserError(cli.message(error)) from error
    if config.train.gradient_accumulation_steps > 1:
        raise UserError("config.train.gradient_accumulation_steps is counted as 1; leave it at that.")
    jax.config.update("jax_platforms", "cpu")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    mesh = tpu_mesh(TOPOLOGY.value) if TOPOLOGY.value else create_mesh()
    report = Report(model=config.model.name, devices=mesh.size, compiled_for=mesh.devices.flat[0].device_kind)
    compiled = lower_step(config, mesh).compile()
    work, exchanges = count_work(compiled), collectives(compiled.as_text())
    counts = {"gflop": work.flops / 1e9, "gbyte": work.memory_bytes / 1e9}
    report.add("step of a device", **counts, longest_chain_of_exchanges=max(x.depth for x in exchanges))
    for kind in KINDS:
        opcodes = [x.opcode for x in exchanges if x.kind == kind]
        found, kb = " ".join(sorted({*opcodes})), count_bytes(exchanges, [kind]) / 1e3
        report.add("exchanges", purpose=kind, count=len(opcodes), kB=kb, opcodes=found)
    count, nbytes = len(exchanges), count_bytes(exchanges)
    for (name, machine), devices in itertools.product(MACHINES.items(), _NCCL):
        best, likely, worst = (machine.efficiency(work, devices, count, nbytes, factor) for factor in (0.5, 1, 2))
        efficiency = f"{likely:.0%} ({worst:.0%} to {best:.0%})"
        report.add("scaling, estimated", machine=name, devices=devices, efficiency=efficiency)
    return report.finish()


if __name__ == "__main__":
    cli.run(main)
