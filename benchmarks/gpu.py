"""Correctness and speed on an accelerator beside PyTorch, in one run of less than ten minutes.

    python -m benchmarks.gpu --output=results

Needs numpy, jax, flax, optax and absl alone; PyTorch is left out where it is missing or finds no accelerator. On a CPU,
or with --quick, everything is small: that shows that the script works and nothing else.
"""

import itertools
import os
import time
from concurrent.futures import ThreadPoolExecutor

# JAX and PyTorch share the device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np
from absl import flags
from flax import nnx
from jax.sharding import Mesh

from benchmarks import jax_baseline, suite
from benchmarks.measure import WARM_UP
from benchmarks.report import Report
from benchmarks.suite import SIZES, Suite
from fume_jax.data.device_cache import DeviceCache, decoded_spec
from fume_jax.interop import from_state_dict
from fume_jax.learning.augment import draw_plan
from fume_jax.runtime import cli
from fume_jax.runtime.prefetch import prefetch_map
from fume_jax.schema import MASK_CLASSES
from tests import golden

_BUDGET = flags.DEFINE_float("budget_seconds", 480, "Nothing is started after this many seconds.", lower_bound=0)
flags.adopt_module_key_flags(suite)
HALF = {"dtype": "bfloat16"}
# Each takes over a minute to compile on a GPU: what is most wanted comes first.
JAX_VARIANTS = {"JAX, bfloat16": HALF, "JAX": {}, "JAX, bfloat16, shifted depthwise": HALF | {"lowering": "shifted"}}
# Ratios are to the first, which is how the reference trains.
TORCH_VARIANTS = {"PyTorch, float16": {"half": True}, "PyTorch": {}}
TORCH_VARIANTS["PyTorch, float16, compiled"] = {"half": True, "compiled": True}


def golden_values(suite: Suite) -> None:
    """Compares logits with those of the reference; differences of 1e-4 are allowed."""
    graphdef, state = nnx.split(from_state_dict("fume", golden.state_dict("fume")))
    forward = jax.jit(lambda state, inputs: nnx.merge(graphdef, state)(**inputs))
    for case in ("both", "co2_only", "ch4_only"):
        # The default on an accelerator is a lower precision than the values were computed in.
        with jax.default_matmul_precision("highest"):
            outputs = jax.device_get(forward(state, golden.inputs(2, 96, 128, case)))
        for key, x in outputs.items():
            x = x.transpose(0, 3, 1, 2)[:, :, ::8, ::8] if x.ndim == 4 else x
            largest = float(np.abs(x - golden.GOLDEN[f"fume/96x128/{case}/{key}"]).max())
            suite.report.add("golden values", case=case, output=key, largest_difference=largest, allowed=1e-4)


def epoch(suite: Suite) -> None:
    """Trains from noise in the device's memory, which is augmented there as threads of the host draw it."""
    pairs, batch_size = (16, 2) if suite.quick else (jax_baseline.EPOCH_PAIRS, 8)
    (height, width), steps = SIZES[suite.quick], pairs // batch_size
    spec = decoded_spec(pairs, height, width)
    arrays = {key: np.ones(x.shape, x.dtype) for key, x in spec.items() if key != "pixels"}
    arrays["pixels"] = np.random.default_rng(0).integers(0, len(MASK_CLASSES), spec["pixels"].shape, np.uint8)
    cache = DeviceCache(spec, [arrays], Mesh(np.array(jax.devices()[:1]), ("data",)))
    operations = jax_baseline.create_augmentation()

    def draw_request(step):
        rng = np.random.default_rng(step)
        plans = [draw_plan(operations, rng, height=height, width=width) for _ in range(batch_size)]
        indices = rng.integers(pairs, size=batch_size, dtype=np.int32)
        return {"example_index": indices, "plan": jax.tree.map(lambda *arrays: np.stack(arrays), *plans)}

    batch = jax_baseline.random_batch(batch_size, height, width)
    step = jax_baseline.TrainingStep(batch, "float32" if suite.quick else "bfloat16")
    with ThreadPoolExecutor(2) as pool:
        batches = cache.batches(prefetch_map(pool, draw_request, range(WARM_UP + steps), depth=64))
        for batch in itertools.islice(batches, WARM_UP):
            jax.block_until_ready(step(batch))
        start = time.perf_counter()
        for batch in batches:
            metrics = step(batch)
        jax.block_until_ready(metrics)
    speed = steps * batch_size / (time.perf_counter() - start)
    suite.report.add("epoch", batch=batch_size, pairs_per_second=speed, seconds=pairs / speed)


def main() -> int:
    """Measures as much as there is time for; returns the exit code."""
    on_cpu = jax.default_backend() == "cpu"
    quick = on_cpu if suite.QUICK.value is None else suite.QUICK.value
    # Seconds of a first call are those of a first start.
    jax.config.update("jax_enable_compilation_cache", quick)
    jax.config.update("jax_disable_most_optimizations", quick)
    torch_variants = {name: TORCH_VARIANTS[name] | {"device": "cpu" if on_cpu else "cuda"} for name in TORCH_VARIANTS}
    report = Report(_BUDGET.value, device=jax.devices()[0].device_kind)
    # What is most wanted comes first: XLA takes a minute to compile a step for an H200, trying kernels on the device.
    tasks = [("TrainingStep", 8), ("Inference", 1), ("TrainingStep", 32), ("TrainingStep", 128), ("Inference", 32)]
    parts = {"golden values": golden_values, "epoch": epoch}
    return Suite(report, quick, JAX_VARIANTS, torch_variants).run(parts, tasks)


if __name__ == "__main__":
    cli.run(main)
