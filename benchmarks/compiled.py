"""What a compiler makes of forward pass and training step for a device that need not be there.

    python -m benchmarks.compiled --config=fume --platform=cuda --config.model.dtype=bfloat16   # one H100
    python -m benchmarks.compiled --config=fume --platform=tpu --config.model.dtype=bfloat16    # one TPU v5e
    python -m benchmarks.compiled --config=fume --platform=cpu                                  # this CPU

Counts kernels by kind and by part, bytes, operations and memory. The compilers come with pip install -e ".[compilers]";
a program takes them minutes. Seconds are an ESTIMATE: nothing runs.
"""

import jax
from absl import flags

from benchmarks.composition import LOWER, measure
from benchmarks.programs import CONFIG, TOPOLOGY, one_device
from benchmarks.report import Report
from fume_jax.models import layers
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
    layers.TOGETHER = ("cpu",) if _PLATFORM.value == "cuda" else ()  # a CPU traces what another device runs
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
