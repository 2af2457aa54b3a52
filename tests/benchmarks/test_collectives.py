"""Collectives are counted in programs that are known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import BACKWARD, COUNTS, FORWARD, GRADIENTS, Collective, collectives, count_bytes
from fume_jax.runtime.mesh import create_mesh

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
    assert count_bytes(collectives(STEP), [GRADIENTS]) == 420
    assert count_bytes(collectives(STEP)) == 16 + 4 + 32 + 12 + 20 + 4 + 400


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
    assert [(x.opcode, count_bytes([x])) for x in found] == [(opcode, nbytes)]


def test_what_merely_mentions_a_collective_is_none():
    line = '%fusion = f32[2]{0} fusion(%all-reduce.1), calls=%c, metadata={op_name="jit(f)/all-reduce(x)"}'
    assert collectives(f"ENTRY %main (p: f32[2]) -> f32[2] {{\n  {line}\n}}") == []


def test_a_program_compiled_here():
    mesh = create_mesh()
    assert mesh.size == 8
    x = jax.ShapeDtypeStruct((16, 5), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("data")))

    def twice(x):  # the second sum waits for the first
        x = x - x.mean(0, keepdims=True)
        return jnp.square(x).sum(0)

    replicated = NamedSharding(mesh, PartitionSpec())
    found = collectives(jax.jit(twice, out_shardings=replicated).lower(x).compile().as_text())
    assert [(x.opcode, count_bytes([x]), x.depth) for x in found] == [("all-reduce", 20, 1), ("all-reduce", 20, 2)]
