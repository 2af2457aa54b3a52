"""Correctness and speed on whatever accelerator there is, beside PyTorch's, in one run of less than ten minutes.

    python -m benchmarks.gpu --output=results

Measures in the order of importance, and prints every row as it comes and all tables last, so that a run that is cut
short leaves what it found. Needs numpy, jax, flax, optax and absl alone; what concerns PyTorch is left out unless it is
there and finds the accelerator. On a CPU, or with --quick, it runs at a small size: that shows that the script works
and nothing else.
"""

import collections
import contextlib
import dataclasses
import functools
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from unittest import mock

# Both sides share the device.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import nnx

from benchmarks import ours
from benchmarks.account import account, ceilings, work_of
from benchmarks.report import OUTPUT, Report
from benchmarks.timing import alternate
from fume_jax.interop import from_state_dict
from fume_jax.learning import augment_jax
from fume_jax.learning.augment import draw_plan
from fume_jax.learning.step import predict_step, split_model
from fume_jax.models import depthwise
from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError
from fume_jax.runtime.prefetch import prefetch_map
from fume_jax.schema import CLASSES, GASES, batch_spec
from tests import golden

# It adds a lowering; its kind of kernel is to leave JAX.
with contextlib.suppress(ImportError):
    import benchmarks.depthwise_pallas  # noqa: F401

QUICK = flags.DEFINE_bool("quick", None, "Small frames, few runs; on a CPU --suite=gpu does so unless told --noquick.")
ONLY = flags.DEFINE_list(
    "only", None, "What to measure; all if not given. A name that there is not lists those there are."
)
_LIMIT = flags.DEFINE_integer("limit_s", 540, "Nothing is begun after this many seconds.")

# What speeds are relative to: PyTorch as the reference trains.
MIXED, HALF = "PyTorch, mixed precision", "PyTorch, half precision"


@dataclasses.dataclass
class Visit:
    """One run of the script.

    Attributes:
      report: where results go.
      quick: at a small size.
      deadline: of `time.monotonic`, after which nothing is begun.
      peer: `benchmarks.peer` if PyTorch finds the device, else None.
      torch_device: its name there.
    """

    report: Report
    quick: bool
    deadline: float
    peer: ModuleType | None
    torch_device: str

    def __post_init__(self):
        self.size = (96, 128) if self.quick else (480, 640)
        self.repeats = 2 if self.quick else 10
        # Compiling takes most of the time, and on a CPU more of it for bfloat16.
        self.dtypes = ("float32",) if self.quick else ("bfloat16", "float32")
        self.dtype = self.dtypes[0]
        names = dict.fromkeys(name for name, _ in depthwise.IMPLEMENTATIONS)
        self.lowerings = ("shifted", "library") if self.quick else tuple(names)
        self.batch = functools.cache(lambda batch_size: ours.random_batch(batch_size, *self.size))
        # Compiled once for all measurements that they take part in.
        self.ours = functools.cache(self._ours)

    def in_time(self, what: str) -> bool:
        """Whether there is time left to begin something; if not, that is reported."""
        if time.monotonic() < self.deadline:
            return True
        self.report.leave_out(what, "out of time")
        return False

    def started(self, name: str, batch_size: int, create: Callable):
        """A call that has run once, and been reported with what that took; None if it cannot or there is no time."""
        what = f"{name}, batch {batch_size}"
        if not self.in_time(what):
            return None
        with self.report.attempt(what):
            start = time.perf_counter()
            call = create()
            jax.block_until_ready(call())
            row = {"call": type(call).__name__, "batch": batch_size, "implementation": name}
            row["seconds_to_first"] = time.perf_counter() - start
            if hasattr(call, "compiled"):
                row |= {"of_them_tracing": call.lower_seconds, "of_them_compiling": call.compile_seconds}
                row["allocated_at_most_so_far_mb"] = _allocated()
            self.report.add("first call", **row, step_mb=call.memory_bytes / 1e6 if call.memory_bytes else None)
            return call

    def _ours(self, kind, batch_size, dtype):
        create = functools.partial(getattr(ours, kind), self.batch(batch_size), dtype)
        return self.started(f"JAX, {dtype}", batch_size, create)

    def both(self, kind: str, batch_size: int, variants: dict[str, dict]) -> dict:
        """Calls by name: `ours.KIND` by dtype, and the variants of `peer.KIND`, as far as they start."""
        calls = {f"JAX, {dtype}": self.ours(kind, batch_size, dtype) for dtype in self.dtypes}
        for name, options in variants.items() if self.peer else ():
            create = functools.partial(getattr(self.peer, kind), self.batch(batch_size), self.torch_device, **options)
            calls[name] = self.started(name, batch_size, create)
        return {name: call for name, call in calls.items() if call}

    def compare(self, task: str, batch_size: int, calls: dict, *, steps: int, to: str) -> None:
        """Times the calls side by side, and accounts for ours."""
        timings = alternate(calls, repeats=self.repeats, steps=1 if self.quick else steps)
        self.report.compare(task, timings, batch_size, to=to)
        for name, call in calls.items():
            if hasattr(call, "compiled"):
                dtype = name.removeprefix("JAX, ")
                ceiling = ceilings(dtype, *((256, 16) if self.quick else (8192, 4000)))
                work = work_of(call.compiled, call.lowered)
                row = {"task": task, "batch": batch_size, "dtype": dtype}
                self.report.add("account", **row, **account(work, ceiling, timings[name].seconds))
                self.report.ceiling(dtype, ceiling)


def golden_values(visit: Visit) -> None:
    """Largest difference of the logits from the published implementation's; 1e-4 is allowed."""
    for name in ("fume",) if visit.quick else ("fume", "fume_separate"):
        worst = 0.0
        graphdef, state = nnx.split(from_state_dict(name, golden.state_dict(name)))
        forward = jax.jit(lambda state, x, graphdef=graphdef: nnx.merge(graphdef, state)(**x))
        for case in ("both", "co2_only", "ch4_only"):
            # The default on an accelerator is a lower precision than the values were computed in.
            with jax.default_matmul_precision("highest"):
                outputs = forward(state, golden.inputs(2, 96, 128, case))
            for key, value in outputs.items():
                value = np.asarray(value)
                value = value.transpose(0, 3, 1, 2)[:, :, ::8, ::8] if value.ndim == 4 else value
                worst = max(worst, float(np.abs(value - golden.GOLDEN[f"{name}/96x128/{case}/{key}"]).max()))
        visit.report.add("golden values", model=name, largest_difference=worst, allowed=1e-4)


def training(visit: Visit, batch_size: int, *, compiled: bool) -> None:
    """Training steps, several on their way at a time, as they are in training."""
    variants = {MIXED: {"amp": True}}
    if compiled:
        variants[f"{MIXED}, compiled"] = {"amp": True, "compiled": True}
    else:
        variants[f"{MIXED}, channels last"] = {"amp": True, "channels_last": True}
        variants["PyTorch, float32"] = {}
    calls = visit.both("TrainingStep", batch_size, variants)
    visit.compare("training", batch_size, calls, steps=max(1, 80 // batch_size), to=MIXED)


def inference(visit: Visit, batch_size: int) -> None:
    """Logits of a batch that lies on the device; of one pair the latency, one call at a time."""
    variants = {HALF: {"half": True}, "PyTorch, float32": {}}
    if not visit.quick:
        variants[f"{HALF}, compiled"] = {"half": True, "compiled": True}
        variants["PyTorch, float32, compiled"] = {"compiled": True}
    calls = visit.both("Inference", batch_size, variants)
    visit.compare("inference", batch_size, calls, steps=1 if batch_size == 1 else 10, to=HALF)


def lowerings(visit: Visit, batch_size: int) -> None:
    """The training step with each lowering of depthwise convolution."""
    own = depthwise.LOWERING.get(jax.default_backend(), depthwise.LOWERING["default"])
    calls = {own: visit.ours("TrainingStep", batch_size, visit.dtype)}
    for name in visit.lowerings:
        if name != own:
            with ours.lowered_as(name):
                create = functools.partial(ours.TrainingStep, visit.batch(batch_size), visit.dtype)
                calls[name] = visit.started(f"JAX, {visit.dtype}, {name}", batch_size, create)
    calls = {name: call for name, call in calls.items() if call}
    timings = alternate(calls, repeats=visit.repeats, steps=1 if visit.quick else 10)
    visit.report.compare("depthwise convolution in the training step", timings, batch_size, to="library")


def layers(visit: Visit, batch_size: int) -> None:
    """Each lowering alone on the shapes of the model's layers, forward and backward."""
    totals = collections.Counter()
    found = _depthwise_layers(visit, batch_size).items()
    for (shape, kernel_shape, stride), count in list(found)[:2] if visit.quick else found:
        calls = {}
        x, kernel = jnp.ones(shape, jnp.bfloat16), jnp.ones(kernel_shape, jnp.bfloat16)
        for name in visit.lowerings:
            with ours.lowered_as(name), visit.report.attempt(f"{name}, {shape}"):
                calls |= _convolution(name, x, kernel, stride)
        timings = alternate(calls, repeats=visit.repeats, steps=1 if visit.quick else 20)
        for (name, direction), timing in timings.items():
            totals[name, direction] += count * timing.seconds
            row = {"layer": "x".join(map(str, shape)), "stride": stride, "layers": count}
            us = 1e6 * timing.seconds
            visit.report.add("depthwise layers", **row, lowering=name, direction=direction, us=us, runs=timing.runs)
    for (name, direction), seconds in totals.items():
        visit.report.add("depthwise layers", layer="all", lowering=name, direction=direction, us=1e6 * seconds)


def _depthwise_layers(visit, batch_size):
    """Shapes of input and kernel and the stride of every depthwise layer, and how many are alike."""
    model = nnx.eval_shape(ours.fresh_model)
    model.eval()
    graphdef, *state = split_model(model)
    with mock.patch.object(depthwise, "depthwise_conv", wraps=depthwise.depthwise_conv) as spy:
        jax.eval_shape(functools.partial(predict_step, graphdef=graphdef), *state, batch_spec(batch_size, *visit.size))
    return collections.Counter((x.shape, kernel.shape, stride) for (x, kernel, stride), _ in spy.call_args_list)


def _convolution(name, x, kernel, stride):
    """Compiled calls of one layer in both directions."""

    def forward(x, kernel):
        return depthwise.depthwise_conv(x, kernel, stride)

    def backward(x, kernel, g):
        return jax.vjp(forward, x, kernel)[1](g)

    g = jnp.ones_like(forward(x, kernel))
    directions = {"forward": (forward, (x, kernel)), "backward": (backward, (x, kernel, g))}
    return {
        (name, direction): functools.partial(jax.jit(fn).lower(*arrays).compile(), *arrays)
        for direction, (fn, arrays) in directions.items()
    }


def dispatch(visit: Visit) -> None:
    """What a call of the step costs besides its work, by how its state is passed.

    Of a step that takes and returns the same and does next to nothing.
    """
    state, _ = ours.create_training()
    leaves, treedef = jax.tree.flatten(state)
    batch = jax.device_put(visit.batch(2))

    def step(state, batch):
        return jax.tree.map(lambda x: x + 1, state), {"loss": batch["modality_mask"].sum()}

    def flat(leaves, batch):
        state, metrics = step(jax.tree.unflatten(treedef, leaves), batch)
        return jax.tree.leaves(state), metrics

    for name, fn, before in (("dicts", step, state), ("flat leaves", flat, leaves)):
        jitted = jax.jit(fn, donate_argnums=0)
        for how, called in (("jit", jitted), ("compiled ahead", jitted.lower(before, batch).compile())):
            call = ours.Repeated(called, jax.tree.map(jnp.copy, before), batch)
            timing = alternate({name: call}, repeats=visit.repeats, steps=20)[name]
            us = 1e6 * timing.seconds
            visit.report.add("dispatch", state=name, called_by=how, leaves=len(leaves), us=us, runs=timing.runs)


def resident_epoch(visit: Visit, batch_size: int, *, steps_a_call: int = 1) -> None:
    """An epoch of the published size from pairs that lie in the device's memory as bytes.

    They are gathered and augmented there, as two threads of the host draw it, as `fume_jax.data.device_cache` does.
    """
    pairs = 8 if visit.quick else ours.PAIRS
    names = [f"{gas}_{kind}" for gas in GASES for kind in ("frame", "mask")]
    keys = dict(zip(names, jax.random.split(jax.random.key(0), len(names)), strict=True))
    data = {
        name: jax.random.randint(key, (pairs, *visit.size), 0, 256 if name.endswith("frame") else 3, jnp.uint8)
        for name, key in keys.items()
    }

    def example(data, index, plan):
        pixels = {name: x[index][..., None] if name.endswith("frame") else x[index] for name, x in data.items()}
        return augment_jax.apply(pixels | {"modality_mask": jnp.ones(len(GASES))}, plan)

    def batch_of(data, order):
        batch = {name: jnp.ones(x.shape, x.dtype) for name, x in batch_spec(batch_size, *visit.size).items()}
        return batch | jax.vmap(functools.partial(example, data))(*order) | {"labels": order[0] % len(CLASSES)}

    def drawn(call):
        """Indices and plans of the steps of a call."""
        rng = np.random.default_rng(call)
        height, width = visit.size
        indices = rng.integers(pairs, size=(steps_a_call, batch_size), dtype=np.int32)
        plans = [draw_plan(ours.AUGMENTATION, rng, height=height, width=width) for _ in range(indices.size)]
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *plans)
        return indices, jax.tree.map(lambda x: x.reshape(*indices.shape, *x.shape[1:]), stacked)

    state, step = ours.create_training(visit.dtype)

    def several(state, data, orders):
        return jax.lax.scan(lambda state, order: step(state, batch_of(data, order)), state, orders)

    calls = pairs // (batch_size * steps_a_call)
    compiled = jax.jit(several, donate_argnums=0).lower(state, data, drawn(0)).compile()
    done, start = 0, time.perf_counter()
    with ThreadPoolExecutor(2) as pool, contextlib.closing(prefetch_map(pool, drawn, range(calls), depth=64)) as orders:
        for order in orders:
            state, metrics = compiled(state, data, order)
            done += steps_a_call
            if done % 80 == 0:
                jax.block_until_ready(metrics)
                if not visit.in_time(f"resident epoch after {done} steps"):
                    break
    jax.block_until_ready(metrics)
    seconds = time.perf_counter() - start
    speed = done * batch_size / seconds
    visit.report.add(
        "resident epoch",
        batch=batch_size,
        steps_a_call=steps_a_call,
        steps_measured=done,
        pairs_per_second=speed,
        seconds_of_4383_pairs=ours.PAIRS / speed,
        minutes_of_50_epochs=ours.EPOCHS * ours.PAIRS / speed / 60,
    )


def _allocated():
    """Megabytes that JAX had on the device at most since it started, where it tells."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 1e6 if "peak_bytes_in_use" in stats else None


def _peer(report, platform):
    """The module and PyTorch's name of the device; None if it does not find it."""
    try:
        from benchmarks import peer
    except ImportError as error:
        report.leave_out("PyTorch", str(error))
        return None, ""
    if platform == "cpu":
        return peer, "cpu"
    if not peer.prepare_cuda():
        report.leave_out("PyTorch", "it finds no CUDA device")
        return None, ""
    return peer, "cuda"


def chosen(parts: list[str]) -> list[str]:
    """Those that `--only` names, in its order; all without it.

    Raises:
      UserError: if it names another.
    """
    if unknown := set(ONLY.value or ()) - set(parts):
        raise UserError(f"--only knows no {', '.join(sorted(unknown))}; choose of: {', '.join(parts)}.")
    return ONLY.value or parts


def main() -> int:
    """Measures as much as there is time for; returns the exit code."""
    device = jax.devices()[0]
    quick = device.platform == "cpu" if QUICK.value is None else QUICK.value
    report = Report(OUTPUT.value, device=device.device_kind, frames="96x128" if quick else "480x640")
    deadline = time.monotonic() + _LIMIT.value
    visit = Visit(report, quick, deadline, *_peer(report, device.platform))
    few = 2 if quick else ours.BATCH_SIZE
    plan = {
        "golden values": golden_values,
        "training": functools.partial(training, batch_size=few, compiled=False),
        "training compiled": functools.partial(training, batch_size=few, compiled=True),
        "inference": functools.partial(inference, batch_size=1),
        "inference of 32": functools.partial(inference, batch_size=32),
        "training of 32": functools.partial(training, batch_size=32, compiled=False),
        "training of 128": functools.partial(training, batch_size=128, compiled=False),
        "depthwise convolution in the training step": functools.partial(lowerings, batch_size=few),
        "depthwise layers": functools.partial(layers, batch_size=few),
        "dispatch": dispatch,
        "resident epoch": functools.partial(resident_epoch, batch_size=few),
        "resident epoch by 8 steps": functools.partial(resident_epoch, batch_size=few, steps_a_call=8),
        "training of 32 compiled": functools.partial(training, batch_size=32, compiled=True),
        "training of 128 compiled": functools.partial(training, batch_size=128, compiled=True),
    }
    if quick:
        jax.config.update("jax_disable_most_optimizations", True)
        plan = {what: measure for what, measure in plan.items() if not re.search("32|128|compiled|steps", what)}
    for what in chosen(list(plan)):
        if visit.in_time(what):
            with report.attempt(what):
                plan[what](visit)
            if visit.peer:
                visit.peer.release()
    report.finish()
    return PARTLY_DONE if report.failed else DONE


if __name__ == "__main__":
    cli.run(main)
