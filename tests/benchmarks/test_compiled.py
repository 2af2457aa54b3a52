"""Kernels are counted by hand in a program as compilers write it, and in one that is compiled here."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import composition
from benchmarks.kernels import count, kernels
from benchmarks.programs import one_device
from benchmarks.report import Report
from configs.fume import get_config

# As the compiler for GPUs writes it: a fusion that reads a slice of a vector, calls of libraries, a fusion whose origin
# is known from what it holds, a loop of one kernel, and copies, one of them in two instructions.
PROGRAM = """
HloModule jit_step, is_scheduled=true

%fused_slice (param_0: f32[100], param_1: f32[4]) -> f32[4] {
  %param_0 = f32[100]{0} parameter(0)
  %param_1 = f32[4]{0} parameter(1)
  %slice.1 = f32[4]{0} slice(%param_0), slice={[8:12]}
  ROOT %add.1 = f32[4]{0} add(%slice.1, %param_1), metadata={op_name="jit(f)/jvp(encoder)/add"}
}

%fused_named (param_0.1: bf16[4,2]) -> f32[4] {
  %param_0.1 = bf16[4,2]{1,0} parameter(0)
  %convert.1 = f32[4,2]{1,0} convert(%param_0.1), metadata={op_name="jit(f)/transpose(jvp(heads))/sum"}
  ROOT %reduce.1 = f32[4]{0} reduce(%convert.1), dimensions={1}, to_apply=%sum
}

%body (state: f32[4]) -> f32[4] {
  %state = f32[4]{0} parameter(0)
  ROOT %multiply.1 = f32[4]{0} multiply(%state, %state), metadata={op_name="jit(f)/optimizer/mul"}
}

ENTRY %main (p: f32[100], q: f32[4]) -> f32[4] {
  %p = f32[100]{0} parameter(0)
  %q = f32[4]{0} parameter(1)
  %fusion.1 = f32[4]{0} fusion(%p, %q), kind=kLoop, calls=%fused_slice, metadata={op_name="jit(f)/jvp(encoder)/add"}
  %gemm.1 = (bf16[4,2]{1,0}, s8[32]{0}) custom-call(%fusion.1, %q), custom_call_target="__cublas$gemm"
  %get.1 = bf16[4,2]{1,0} get-tuple-element(%gemm.1), index=0
  %conv.1 = bf16[4,2]{1,0} custom-call(%get.1), custom_call_target="__cudnn$convForward"
  %fusion.2 = f32[4]{0} fusion(%conv.1), kind=kInput, calls=%fused_named, backend_config={"estimated_cycles":"70"}
  %while.1 = f32[4]{0} while(%fusion.2), body=%body
  %copy.1 = f32[4]{0} copy(%while.1)
  %start.1 = (f32[4]{0}, f32[4]{0}) copy-start(%copy.1)
  ROOT %done.1 = f32[4]{0} copy-done(%start.1)
}
"""


def test_kernels_by_hand():
    found = kernels(PROGRAM)
    assert [x[:5] for x in found] == [
        ("fusion", "encoder", False, 16 + 16 + 16, 0),
        ("matmul", "other", False, 16 + 16 + 16 + 32, 0),
        ("convolution", "other", False, 16 + 16, 0),
        ("fusion", "heads", True, 16 + 16, 70),
        ("multiply", "optimizer", False, 3 * 16, 0),
        ("copy", "other", False, 32, 0),
        ("copy", "other", False, 48, 0),
    ]
    assert (found[0].name, found[0].operation, found[0].shape) == ("fusion.1", "add", "f32[4]")
    assert count(found, "kind") == {"fusion": 2, "copy": 2, "matmul": 1, "convolution": 1, "multiply": 1}


@pytest.mark.parametrize("product, flops", [("ij,jk->ik", 2 * 3 * 4 * 5), ("bij,bjk->bik", 2 * 7 * 3 * 4 * 5)])
def test_operations_of_matrix_products_by_hand(product, flops):
    lead = (7,) * product.startswith("b")
    arrays = jnp.ones((*lead, 3, 4)), jnp.ones((*lead, 4, 5))
    compiled = jax.jit(lambda a, b: jnp.einsum(product, a, b) + 1).lower(*arrays).compile()
    assert sum(x.flops for x in kernels(compiled.as_text())) == flops


@pytest.mark.slow
def test_a_program_for_this_cpu_is_reported_by_its_parts():
    config = get_config("multi_task")
    config.model.backbone = "tiny"
    config.data.height = config.data.width = 64
    config.train.batch_size = config.eval.batch_size = 1
    report = Report()
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        composition.measure(report, "training", config, one_device("cpu", ""), "cpu")
    (program,) = report.results["programs"]
    by_part = {row["part"]: row["forward"] + row["backward"] for row in report.results["kernels by part"]}
    assert {"encoder", "heads", "loss", "optimizer", "guard"} <= set(by_part)
    assert sum(by_part.values()) == program["kernels"]
    assert sum(row["kernels"] for row in report.results["kernels by kind"]) == program["kernels"]
    assert min(program["gflop"], program["gbyte"], program["peak_mb"]) > 0
    assert "time, estimated" not in report.results
