"""Speed and memory of training and inference beside PyTorch's, in tables and as JSON.

    pip install -e ".[benchmarks]"
    python -m benchmarks.run --suite=cpu --output=results
    python -m benchmarks.run --suite=cpu --only=inference,training --repeats=5
    python -m benchmarks.run --suite=gpu

The peer is PyTorch with the same layers, loss and optimiser; all sides of a comparison take turns in one run. With
`--profile` traces are written to OUTPUT/profile, which TensorBoard opens:

    pip install xprof && tensorboard --logdir=OUTPUT/profile
"""

import tempfile

import jax
import psutil
from absl import flags

from benchmarks import gpu
from benchmarks.gpu import QUICK
from benchmarks.report import OUTPUT, Report
from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError, needs_extra

_SUITE = flags.DEFINE_enum("suite", "cpu", ["cpu", "gpu"], "What to measure; gpu is benchmarks/gpu.py.")
_REPEATS = flags.DEFINE_integer("repeats", 20, "Runs of each, fewer of what takes over a second.", lower_bound=1)
_PEERS = flags.DEFINE_list("peers", ["amp", "compile"], "Kinds of PyTorch besides eager: amp, compile.")
flags.register_validator("peers", lambda v: set(v) <= {"amp", "compile"}, "It is a list of amp, compile, or empty.")
_DATA = flags.DEFINE_string("data", None, "Prepared dataset for the part input; one is rendered if not given.")
_PROFILE = flags.DEFINE_bool("profile", False, "Write traces of our steps under --output.")


def main() -> int:
    """Runs a suite; returns the exit code."""
    if _SUITE.value == "gpu":
        return gpu.main()
    with needs_extra("benchmarks", "The peer"):
        import torch

        from benchmarks import cpu, peer

    parts = gpu.chosen(list(cpu.PARTS))
    if _PROFILE.value and not OUTPUT.value:
        raise UserError("--profile needs a folder to write to: --output=DIR.")
    jax.config.update("jax_platforms", "cpu")
    others = psutil.cpu_percent(interval=1)
    report = Report(OUTPUT.value, threads_of_pytorch=torch.get_num_threads(), percent_of_cpu_taken_by_others=others)
    if others > 20:
        print("WARNING: others are at work here. Threads of PyTorch wait for one another: its times mean little so.")
    peers = [{"amp": cpu.AMP, "compile": cpu.COMPILED}[name] for name in _PEERS.value]
    if cpu.COMPILED in peers and not peer.can_compile():
        peers.remove(cpu.COMPILED)
        report.leave_out(cpu.COMPILED, "there is no compiler for C++")
    with tempfile.TemporaryDirectory() as scratch:
        options = cpu.Options(
            size=(96, 128) if QUICK.value else (480, 640),
            inference_batches=(1,) if QUICK.value else (1, 32),
            training_batches=(2,) if QUICK.value else (2, 8, 32),
            repeats=_REPEATS.value,
            peers=tuple(peers),
            data=_DATA.value,
            profile=f"{OUTPUT.value}/profile" if _PROFILE.value else None,
            scratch=scratch,
        )
        for part in parts:
            with report.attempt(part):
                cpu.PARTS[part](report, options)
    report.finish()
    return PARTLY_DONE if report.failed else DONE


if __name__ == "__main__":
    cli.run(main)
