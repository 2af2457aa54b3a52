"""What the devices of a training step exchange, counted in the compiled program, and what that would cost at scale.

    python -m benchmarks.scaling                          # by the compiler for CPU, for 8 devices
    python -m benchmarks.scaling --topology=v5e:2x4       # by that for TPU, which needs none: pip install -e ".[tpu]"
    python -m benchmarks.scaling --config.model.batch_norm_splits=8

The first compiler takes a minute, the second three. `--config` is the recipe, any key of which can be set after it;
each device takes `config.train.batch_size` pairs. Prints the collectives of one step, the work of one device, and an
ESTIMATE of weak-scaling efficiency from published figures, under assumptions that it lists.
"""

import dataclasses
import importlib.util
import itertools
import math
import os
from collections.abc import Callable, Sequence

import jax
from absl import flags
from ml_collections import config_flags

from benchmarks.account import Work, work_of
from benchmarks.collectives import GRADIENTS, KINDS, Collective, bytes_for, collectives
from benchmarks.timing import table
from fume_jax.config import create_optimizer, train_batch_shape
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError
from fume_jax.training.setup import create_state_fn, create_train_fn

_CONFIG = config_flags.DEFINE_config_file("config", "configs/fume.py", "Recipe.", lock_config=True)
_DEVICES = flags.DEFINE_integer("devices", 8, "Devices, if the compiler is that for CPU.", lower_bound=2)
_TOPOLOGY = flags.DEFINE_string("topology", None, "TPU to compile for, such as v5e:2x4, v5e:16x16 or v6e:8x8.")

# The compiler asks nobody what machine it is on, and leaves the TPU, if there is one, to others.
_NO_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

DEVICES = (8, 64, 1024)  # of the estimate
ASSUMPTIONS = """ESTIMATE, not measured. It assumes that
- each device works at its published rates on the operations and bytes above, whichever compiler they are of; a slower
  step would scale better;
- no exchange is hidden behind arithmetic, all-reduces are as many on any number of devices, and input keeps up;
- a small all-reduce takes what NCCL reckons on H100s, and on TPUs 5 us and 1 us a hop, as once measured on v5e, and 100
  us more between pods, for which nothing is published; in brackets, if latencies were double or half that.
Gradients alone is what would be left without batch statistics.
"""


@dataclasses.dataclass(frozen=True)
class Machine:
    """Published figures of one kind of device and its network.

    Attributes:
      flops: a second that a device can do, of float32 arrays at the default precision of matrix products.
      memory_bandwidth: bytes a second between a device and its memory.
      bandwidth: bytes a second that a device can send to others.
      latency: seconds of a small all-reduce over a number of devices.
    """

    name: str
    flops: float
    memory_bandwidth: float
    bandwidth: float
    latency: Callable[[int], float]


def nccl_latency(devices: int) -> float:
    """Seconds of a small all-reduce on nodes of 8 GPUs, as NCCL itself reckons when it chooses an algorithm.

    Its tree and LL protocol, src/graph/tuning.cc of NCCL 2.28: 6.8 us to begin, 0.6 us a step by NVLink and 5.0 us a
    step by network, up the tree and down again.
    """
    nodes = max(1, devices // 8)
    return 1e-6 * (6.8 + 2 * ((min(devices, 8) - 1) * 0.6 + int(math.log2(nodes)) * 5.0))


def tpu_latency(devices: int) -> float:
    """Seconds of a small all-reduce on slices of TPU v5e or v6e, which are joined by the data centre's network.

    1 us a hop, and 5 us by which a measured exchange of 3 hops took longer (8 us on v5e; Austin et al., How to Scale
    Your Model, 2025, jax-ml.github.io/scaling-book/sharding). There and back along both sides of the slice, of which
    those of 16 are rings. Between slices 100 us, which is assumed: nothing is published.
    """
    chips = int(math.log2(min(devices, 256)))
    sides = (2 ** (chips // 2), 2 ** (chips - chips // 2))
    hops = sum(side // 2 if side == 16 else side - 1 for side in sides)
    return 1e-6 * (5 + 2 * hops + 100 * (devices > 256))


# H100: NVIDIA's data sheet of the SXM module; TF32 without sparsity. A node of 8 (DGX H100) sends 8 times 400 Gb/s,
# which is less than the 450 GB/s each way of NVLink inside it.
# TPU: cloud.google.com/tpu/docs/v5e and v6e; products of float32 arrays are one pass of bfloat16. Half of the 1,600 and
# 3,584 Gb/s that a chip has to its neighbours is counted: slices smaller than 16x16 are no rings.
MACHINES = (
    Machine("H100", 494.5e12, 3.35e12, 400e9, nccl_latency),
    Machine("TPU v5e", 197e12, 819e9, 100e9, tpu_latency),
    Machine("TPU v6e", 918e12, 1640e9, 224e9, tpu_latency),
)


def compute_seconds(machine: Machine, work: Work) -> float:
    """Of a step without its collectives, at the published rates: the longer of arithmetic and memory."""
    return max(work.flops / machine.flops, work.memory_bytes / machine.memory_bandwidth)


def exchange_seconds(machine: Machine, devices: int, count: int, nbytes: int, latency_factor: float = 1.0) -> float:
    """Of `count` all-reduces one after the other: their latency, and 2 (N-1)/N times their bytes at the bandwidth."""
    return count * latency_factor * machine.latency(devices) + 2 * (devices - 1) / devices * nbytes / machine.bandwidth


def efficiency(
    machine: Machine, devices: int, work: Work, count: int, nbytes: int, latency_factor: float = 1.0
) -> float:
    """Share of a step that is not spent on exchanges, of which none is hidden behind arithmetic."""
    compute = compute_seconds(machine, work)
    return compute / (compute + exchange_seconds(machine, devices, count, nbytes, latency_factor))


def estimate(work: Work, exchanges: Sequence[Collective]) -> str:
    """Table of the efficiency of each of `MACHINES` at each of `DEVICES`."""
    # A compiler may have merged gradients into all-reduces of statistics, and would not have without those.
    gradients = max(1, sum(x.kind == GRADIENTS for x in exchanges)), bytes_for(GRADIENTS, exchanges)
    everything = len(exchanges), sum(x.nbytes for x in exchanges)
    rows = []
    for machine, devices in itertools.product(MACHINES, DEVICES):
        best, likely, worst = (efficiency(machine, devices, work, *everything, factor) for factor in (0.5, 1, 2))
        rows.append(
            [
                machine.name,
                f"{devices:,}",
                f"{1e3 * compute_seconds(machine, work):.1f}",
                f"{1e6 * machine.latency(devices):.0f}",
                f"{1e3 * exchange_seconds(machine, devices, *everything):.1f}",
                f"{efficiency(machine, devices, work, *gradients):.1%}",
                f"{likely:.0%} ({worst:.0%} to {best:.0%})",
            ]
        )
    header = ["", "devices", "compute, ms", "an all-reduce, us", "all of them, ms", "gradients alone", "efficiency"]
    return table(header, rows)


def tpu_mesh(topology: str):
    """Mesh of the devices of a TPU that need not be there.

    Raises:
      UserError: if its compiler is not installed or does not know the topology.
    """
    from jax.experimental import topologies

    if importlib.util.find_spec("libtpu") is None:
        raise UserError('--topology needs the compiler for TPU; install it with pip install -e ".[tpu]".')
    os.environ |= _NO_TPU
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"--topology={topology} is none that the compiler knows ({error}); expected one such as v5e:2x4, v5e:16x16 "
            "or v6e:8x8."
        ) from error
    return topologies.make_mesh(devices, (len(devices.devices),), ("data",))


def cpu_mesh(devices: int):
    """Mesh of parts of this machine's CPU."""
    from fume_jax.runtime.mesh import create_mesh

    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return create_mesh()


def lower_step(config, mesh):
    """The step of a recipe whose batch each device of the mesh takes, to be compiled."""
    from fume_jax.runtime.mesh import abstract_batch, replicated
    from fume_jax.training.checkpoint import with_sharding

    config.train.batch_size *= mesh.size
    check(config)
    _, tx = create_optimizer(config, steps_per_epoch=1)
    state = with_sharding(jax.eval_shape(create_state_fn(config, tx, mesh)), replicated(mesh))
    batch = abstract_batch(**train_batch_shape(config), mesh=mesh)
    return create_train_fn(config, tx).lower(state, batch)


def counts(exchanges: Sequence[Collective]) -> str:
    """Table of the collectives of a step."""
    rows = []
    for kind in KINDS:
        own = [exchange for exchange in exchanges if exchange.kind == kind]
        rows.append([kind, len(own), f"{bytes_for(kind, exchanges) / 1e3:,.1f}"])
    total = sum(exchange.nbytes for exchange in exchanges)
    return table(["for", "all-reduces", "kB"], [*rows, ["all", len(exchanges), f"{total / 1e3:,.1f}"]])


def main() -> None:
    """Prints what the module says."""
    from fume_jax.runtime.preflight import step_memory

    config = _CONFIG.value
    if config.train.gradient_accumulation_steps > 1:
        raise UserError("config.train.gradient_accumulation_steps is counted as 1; leave it at that.")
    jax.config.update("jax_platforms", "cpu")
    mesh = tpu_mesh(_TOPOLOGY.value) if _TOPOLOGY.value else cpu_mesh(_DEVICES.value)
    compiled = lower_step(config, mesh).compile()
    work = work_of(compiled)
    exchanges = collectives(compiled.as_text())
    pairs = config.train.batch_size // mesh.size
    print(
        f"{config.model.name}, {pairs} pairs of {config.data.width}x{config.data.height} a device, "
        f"{mesh.size} devices, compiled for {mesh.devices.flat[0].device_kind}\n"
    )
    print(counts(exchanges))
    others = sorted({exchange.opcode for exchange in exchanges} - {"all-reduce"})
    print(
        f"\n{max(x.depth for x in exchanges)} of them one after the other; "
        f"other collectives: {', '.join(others) or 'none'}"
    )
    print(
        f"a device: {work.flops / 1e9:.0f} GFLOP, {work.memory_bytes / 1e9:.1f} GB to and from its memory, "
        f"{step_memory(compiled) / 1e9:.1f} GB held\n"
    )
    print(ASSUMPTIONS)
    print(estimate(work, exchanges))


if __name__ == "__main__":
    cli.run(main)
