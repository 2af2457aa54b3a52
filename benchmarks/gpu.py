"""Correctness and speed on whatever accelerator there is, in one run of a few minutes.

    python -m benchmarks.gpu

Checks the golden values first, then times inference and training steps at 480x640 in float32 and bfloat16, with either
lowering of the depthwise convolution in turns, and prints one Markdown table last. Needs only numpy, jax, flax and
optax. On a CPU, or with --quick, it runs at a small size: that shows that the script works and nothing else.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from flax import nnx

from benchmarks.timing import alternate, table
from fume_jax.interop import from_state_dict
from fume_jax.losses import multi_task_loss
from fume_jax.models import create_model, depthwise
from fume_jax.train_step import create_train_state, jit_train_step, predict_step, split_model
from fume_jax.vocabulary import batch_spec
from tests import golden

_QUICK = flags.DEFINE_bool("quick", None, "Small frames, few runs; the default on a CPU.")
_LIMIT = flags.DEFINE_integer("limit_s", 540, "No new measurement is begun after this many seconds.")

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check_golden() -> float:
    """Largest difference of the logits from the published implementation's."""
    worst = 0.0
    for name in ("fume", "fume_separate"):
        model = from_state_dict(name, golden.state_dict(name))
        for case in ("both", "co2_only", "ch4_only"):
            # The default on an accelerator is a lower precision than the values were computed in.
            with jax.default_matmul_precision("highest"):
                outputs = nnx.jit(lambda m, x: m(**x))(model, golden.inputs(2, 96, 128, case))
            for key, value in outputs.items():
                value = np.asarray(value)
                value = value.transpose(0, 3, 1, 2)[:, :, ::8, ::8] if value.ndim == 4 else value
                worst = max(worst, float(np.abs(value - golden.GOLDEN[f"{name}/96x128/{case}/{key}"]).max()))
    return worst


def random_batch(batch_size: int, height: int, width: int) -> dict[str, jax.Array]:
    """A batch on the device, both gases present."""
    rng = np.random.default_rng(0)
    batch = {}
    for key, spec in batch_spec(batch_size, height, width).items():
        if key.endswith("frame"):
            batch[key] = rng.uniform(-1, 1, spec.shape).astype(spec.dtype)
        elif (key.endswith("mask") and key != "modality_mask") or key == "labels":
            batch[key] = rng.integers(0, 3, spec.shape).astype(spec.dtype)
        else:
            batch[key] = np.ones(spec.shape, spec.dtype)
    return jax.device_put(batch)


def inference(dtype: str, batch: dict, lowering: str):
    """A call that predicts the batch."""
    with_lowering(lowering)
    model = create_model("fume", dtype=DTYPES[dtype], rngs=nnx.Rngs(0))
    model.eval()
    graphdef, params, batch_stats = split_model(model)
    compiled = jax.jit(functools.partial(predict_step, graphdef=graphdef)).lower(params, batch_stats, batch).compile()
    return functools.partial(compiled, params, batch_stats, batch)


def training(dtype: str, batch: dict, lowering: str):
    """A call that takes a training step on the batch."""
    with_lowering(lowering)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=1e-4))
    model = create_model("fume", dtype=DTYPES[dtype], rngs=nnx.Rngs(0))
    state = create_train_state(model, tx)
    compiled = jit_train_step(model, tx, multi_task_loss, seed=0).lower(state, batch).compile()

    def step():
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics

    return step


def with_lowering(name: str) -> None:
    """Compiles depthwise convolutions this way from now on, on every platform."""
    depthwise.LOWERING = {"default": name}


def main(_) -> None:
    start = time.monotonic()
    device = jax.devices()[0]
    quick = device.platform == "cpu" if _QUICK.value is None else _QUICK.value
    size, repeats = ((96, 128), 3) if quick else ((480, 640), 15)
    print(f"golden logits differ by at most {check_golden():.1e} (1e-4 is allowed)", flush=True)
    rows = []
    for task, batch_sizes in ((inference, (1, 32)), (training, (8, 32, 128))):
        for batch_size in batch_sizes[:1] if quick else batch_sizes:
            batch = random_batch(batch_size, *size)
            for dtype in DTYPES:
                if time.monotonic() - start > _LIMIT.value:
                    print(f"out of time before {task.__name__}, batch {batch_size}, {dtype}", flush=True)
                    continue
                row = [task.__name__, batch_size, dtype]
                try:
                    calls = {name: task(dtype, batch, name) for name in ("library", "shifted")}
                    rows.append(row + _cells(alternate(calls, repeats=repeats), batch_size))
                except jax.errors.JaxRuntimeError as error:
                    rows.append([*row, str(error).splitlines()[0][:60], "", "", ""])
                print(rows[-1], flush=True)
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use", float("nan"))
    print(f"\n{device.device_kind}, frames {size[0]}x{size[1]}, jax {jax.__version__}, peak {peak / 2**30:.1f} GiB\n")
    print(table(["task", "batch", "dtype", "library ms", "shifted ms", "shifted/library", "best pairs/s"], rows))


def _cells(medians, batch_size):
    library, shifted = medians["library"], medians["shifted"]
    best = batch_size / min(library, shifted)
    return [f"{1e3 * library:.2f}", f"{1e3 * shifted:.2f}", f"{shifted / library:.2f}", f"{best:.0f}"]


if __name__ == "__main__":
    app.run(main)
