"""Speed and memory of training and inference on a CPU beside PyTorch with the same layers, loss and optimiser.

    python -m benchmarks.run --suite=cpu --output=results

The part `epoch` needs the dataset of benchmarks/input_pipeline.py.
"""

import os

import jax
from absl import flags

from benchmarks import gpu, input_pipeline
from benchmarks.report import Report
from benchmarks.suite import QUICK, SIZES, Suite
from fume_jax.runtime import cli
from fume_jax.runtime.malloc import keep_freed_memory

_SUITE = flags.DEFINE_enum("suite", "cpu", ["cpu", "gpu"], "What to measure; gpu is benchmarks/gpu.py.")
flags.adopt_module_key_flags(gpu)
JAX_VARIANTS = {"JAX": {}, "JAX, grouped convolutions": {"lowering": "library"}}
TORCH_VARIANTS = {"PyTorch": {}, "PyTorch, bfloat16": {"half": True}, "PyTorch, compiled": {"compiled": True}}
EXPORTED_VARIANTS = {"ONNX Runtime": {"runtime": "onnxruntime"}, "OpenVINO": {"runtime": "openvino"}}


def epoch(suite: Suite) -> None:
    """Measures training from files, augmentation included: the first step, speed and memory."""
    options = {"turns": 1, "num_batches": 2} if suite.quick else {"turns": 3}
    input_pipeline.compare(suite.report, "epoch", SIZES[suite.quick], cores=os.cpu_count(), train=True, **options)


def main() -> int:
    """Runs a suite; returns the exit code."""
    if _SUITE.value == "gpu":
        return gpu.main()
    keep_freed_memory()  # as training does
    jax.config.update("jax_platforms", "cpu")
    suite = Suite(Report(), bool(QUICK.value), JAX_VARIANTS, TORCH_VARIANTS, EXPORTED_VARIANTS)
    return suite.run({"epoch": epoch}, [("Inference", 1), ("Inference", 8), ("TrainingStep", 2), ("TrainingStep", 8)])


if __name__ == "__main__":
    cli.run(main)
