"""Collectives counted in programs that are known, and the estimate on cases by hand."""

import importlib.util

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import scaling
from benchmarks.collectives import BACKWARD, COUNTS, FORWARD, GRADIENTS, Collective, bytes_for, collectives
from benchmarks.scaling import Machine, Work, compute_seconds, efficiency, exchange_seconds
from configs.fume import get_config
from fume_jax.config import abstract_model
from fume_jax.models import count_parameters
from fume_jax.runtime.mesh import create_mesh
from tests.commands import assert_refused, run

# Statistics of a layer, with a count of frames; of the next, which needs the first's; those of the backward pass, with
# a gradient that nothing waits for; another gradient.
STEP = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[4]{0:T(128)})->f32[4]{0:T(128)}}

%sum (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %add = f32[]{:T(128)} add(%x, %y)
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %p = f32[4]{0:T(128)} parameter(0)
  %ar.1 = (f32[4]{0:T(128)S(1)}, f32[]{:T(128)}) all-reduce(%p, %p), metadata={op_name="jvp()/sum"}
  %gte.1 = f32[4]{0:T(128)S(1)} get-tuple-element(%ar.1), index=0
  %gte.2 = f32[]{:T(128)} get-tuple-element(%ar.1), index=1
  %fusion.1 = bf16[2,8]{1,0:T(8,128)(2,1)} fusion(%gte.1, %gte.2), kind=kLoop, calls=%f
  %start = bf16[2,8]{1,0:T(8,128)(2,1)} all-reduce-start(%fusion.1), metadata={op_name="jvp()/sum"}
  %apart = f32[4]{0} multiply(%p, %p)
  %done = bf16[2,8]{1,0:T(8,128)(2,1)} all-reduce-done(%start)
  %ar.2 = (f32[3]{0}, f32[5,1]{1,0}, /*index=2*/f32[]) all-reduce(%done, %apart, %p), metadata={op_name="transpose(a)"}
  %gte.3 = f32[3]{0} get-tuple-element(%ar.2), index=0
  %gte.4 = f32[5,1]{1,0} get-tuple-element(%ar.2), index=1
  %ar.3 = f32[100]{0} all-reduce(%gte.3), replica_groups={{0,1}}, to_apply=%sum, metadata={op_name="transpose(b)"}
  ROOT %out = f32[4]{0} fusion(%ar.3, %gte.4), kind=kLoop, calls=%g
}
"""


def test_a_step_by_hand():
    assert collectives(STEP) == [
        Collective("all-reduce", ((16, FORWARD), (4, COUNTS)), depth=1),
        Collective("all-reduce", ((32, FORWARD),), depth=2),
        Collective("all-reduce", ((12, BACKWARD), (20, GRADIENTS), (4, COUNTS)), depth=3),
        Collective("all-reduce", ((400, GRADIENTS),), depth=4),
    ]
    assert [x.kind for x in collectives(STEP)] == [FORWARD, FORWARD, BACKWARD, GRADIENTS]
    assert bytes_for(GRADIENTS, collectives(STEP)) == 420
    assert sum(x.nbytes for x in collectives(STEP)) == 16 + 4 + 32 + 12 + 20 + 4 + 400


@pytest.mark.parametrize(
    "line, opcode, nbytes",
    [
        ("%x = pred[7]{0} all-reduce(%p), replica_groups={}, to_apply=%or", "all-reduce", 7),
        ("%x = s64[2,3]{1,0} all-gather(%p), dimensions={0}", "all-gather", 48),
        ("ROOT %x = f8e4m3fn[6]{0} all-to-all(%p), dimensions={0}", "all-to-all", 6),
        ("%x.1 = f32[2]{0} reduce-scatter(%p), to_apply=%sum", "reduce-scatter", 8),
        ("%x = u32[2]{0} collective-permute(%p), source_target_pairs={{0,1}}", "collective-permute", 8),
        ("%x = f32[8]{0} all-gather-done((f32[2]{0}, f32[8]{0}) %start)", "all-gather", 32),
    ],
)
def test_opcodes_and_dtypes(line, opcode, nbytes):
    found = collectives(f"ENTRY %main (p: f32[2]) -> f32[2] {{\n  %start = f32[2]{{0}} parameter(0)\n  {line}\n}}")
    assert [(x.opcode, x.nbytes) for x in found] == [(opcode, nbytes)]


def test_what_merely_mentions_a_collective_is_none():
    line = '%fusion = f32[2]{0} fusion(%all-reduce.1), calls=%c, metadata={op_name="jit(f)/all-reduce(x)"}'
    assert collectives(f"ENTRY %main (p: f32[2]) -> f32[2] {{\n  {line}\n}}") == []


def test_a_program_compiled_here():
    mesh = create_mesh()
    assert mesh.size == 8
    x = jax.ShapeDtypeStruct((16, 5), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))

    def twice(x):  # the second sum waits for the first
        x = x - x.mean(0)
        return jnp.square(x).sum(0)

    replicated = NamedSharding(mesh, PartitionSpec())
    found = collectives(jax.jit(twice, out_shardings=replicated).lower(x).compile().as_text())
    assert [(x.opcode, x.nbytes, x.depth) for x in found] == [("all-reduce", 20, 1), ("all-reduce", 20, 2)]


MACHINE = Machine("by hand", flops=100.0, memory_bandwidth=10.0, bandwidth=50.0, latency=lambda devices: devices / 8)


def test_the_estimate_by_hand():
    assert compute_seconds(MACHINE, Work(flops=400, memory_bytes=20)) == 4
    assert compute_seconds(MACHINE, Work(flops=400, memory_bytes=60)) == 6
    # 3 all-reduces of 0.5 s, and 2 3/4 of 100 bytes at 50 a second.
    assert exchange_seconds(MACHINE, 4, count=3, nbytes=100) == 1.5 + 3
    assert exchange_seconds(MACHINE, 4, count=3, nbytes=100, latency_factor=2) == 3 + 3
    assert efficiency(MACHINE, 4, Work(400, 20), 3, 100) == 4 / 8.5


@pytest.mark.parametrize(
    "latency, devices, microseconds",
    [
        (scaling.nccl_latency, 8, 6.8 + 14 * 0.6),
        (scaling.nccl_latency, 64, 6.8 + 14 * 0.6 + 6 * 5),
        (scaling.nccl_latency, 1024, 6.8 + 14 * 0.6 + 14 * 5),
        (scaling.tpu_latency, 8, 5 + 2 * (1 + 3)),
        (scaling.tpu_latency, 64, 5 + 2 * (7 + 7)),
        (scaling.tpu_latency, 256, 5 + 2 * (8 + 8)),
        (scaling.tpu_latency, 1024, 5 + 2 * (8 + 8) + 100),
    ],
)
def test_latencies(latency, devices, microseconds):
    assert latency(devices) == pytest.approx(1e-6 * microseconds)


def test_gradients_that_travel_with_statistics_are_one_exchange_in_the_estimate_without_those():
    exchanges = [Collective("all-reduce", ((8, BACKWARD), (10**9, GRADIENTS)), depth=1)]
    row = scaling.estimate(Work(0, 3.35e12), exchanges).splitlines()[2].split(" | ")
    assert row[1] == "8"
    assert row[2] == "1000.0"
    # 2 7/8 of 1 GB at 400 GB/s is 4.4 ms of 1,004.4.
    assert row[5] == "99.6%"


@pytest.fixture(scope="module")
def steps():
    """Number of parameters, and collectives of the training step by number of devices and groups of statistics."""
    config = get_config()
    config.model.name = "multi_task"
    config.data.height = config.data.width = 64
    found = {}
    for devices, groups in ((2, 1), (8, 1), (8, 8)):
        config.train.batch_size, config.model.batch_norm_splits = 1, groups
        mesh = Mesh(jax.devices()[:devices], ("data",))
        # Most of the time goes into code, which need not be fast here.
        compiled = scaling.lower_step(config, mesh).compile({"xla_backend_optimization_level": 0})
        found[devices, groups] = collectives(compiled.as_text())
    return count_parameters(abstract_model(config)), found


@pytest.mark.slow
def test_a_training_step_exchanges_each_gradient_once_and_no_more_often_on_more_devices(steps):
    parameters, found = steps
    for exchanges in found.values():
        assert {x.opcode for x in exchanges} == {"all-reduce"}
        # The gradients of a batch norm's scale and bias are statistics of the backward pass.
        nbytes = bytes_for(GRADIENTS, exchanges) + bytes_for(BACKWARD, exchanges)
        assert nbytes == pytest.approx(4 * parameters, rel=0.03)
    assert found[2, 1] == found[8, 1]


@pytest.mark.slow
def test_layers_wait_for_each_other_once_each_way_unless_each_device_has_its_own_statistics(steps):
    _, found = steps
    layers = 33
    for kind in (FORWARD, BACKWARD):
        assert sum(x.kind == kind for x in found[8, 1]) == pytest.approx(layers, abs=5)
        assert not any(x.kind == kind for x in found[8, 8])
    assert max(x.depth for x in found[8, 1]) >= 2 * layers - 5
    assert max(x.depth for x in found[8, 8]) <= 3


def test_the_compiler_for_tpu_and_its_topologies_are_asked_for_in_plain_words():
    if importlib.util.find_spec("libtpu"):
        assert_refused(run("benchmarks.scaling", "--topology=v5e:nowhere"), "v5e:nowhere", "such as v5e:2x4")
    else:
        assert_refused(run("benchmarks.scaling", "--topology=v5e:2x4"), '".[tpu]"')
