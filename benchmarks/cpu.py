"""What `python -m benchmarks.run --suite=cpu` measures, part by part; the peer is PyTorch in eager mode and float32."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.util
import io
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import psutil

from benchmarks import ours
from benchmarks.account import account, ceilings, work_of
from benchmarks.report import Report
from benchmarks.timing import alternate
from fume_jax.config import create_model
from fume_jax.runtime.malloc import keep_freed_memory

EAGER, AMP, COMPILED = "PyTorch, eager", "PyTorch, bfloat16", "PyTorch, compiled"
# Of memory, that either side takes a pair of 480x640 in a training step, and some.
BYTES_A_PAIR = 0.7e9


@dataclasses.dataclass(frozen=True)
class Options:
    """How and what to measure.

    Attributes:
      size: height and width of frames.
      inference_batches, training_batches: pairs a run.
      repeats: runs of each.
      peers: of `AMP` and `COMPILED`, what is measured besides eager PyTorch.
      data: prepared dataset, or None.
      profile: folder for traces, or None.
      scratch: folder for what is thrown away.
    """

    size: tuple[int, int]
    inference_batches: tuple[int, ...]
    training_batches: tuple[int, ...]
    repeats: int
    peers: tuple[str, ...]
    data: str | None
    profile: str | None
    scratch: str


def inference(report: Report, options: Options) -> None:
    """Logits of a batch: by the compiled function alone, and by what predicts, frames in and logits out on the host."""
    from benchmarks import peer

    for batch_size in options.inference_batches:
        batch = ours.random_batch(batch_size, *options.size)
        calls = {"JAX": ours.Inference(batch), EAGER: peer.Inference(batch)}
        if AMP in options.peers:
            calls[AMP] = peer.Inference(batch, half=True)
        if COMPILED in options.peers:
            calls[COMPILED] = peer.Inference(batch, compiled=True)
        if batch_size == 1:
            with ours.lowered_as("library"):
                calls["JAX, depthwise convolution by the library"] = ours.Inference(batch)
        calls |= _backends(batch, options.size)
        timings = alternate(calls, repeats=options.repeats)
        report.compare("inference", timings, batch_size, to=EAGER)
        _account(report, options, "inference", calls["JAX"], batch_size, timings["JAX"].seconds)
        peer.release()


def _backends(batch, size):
    """What `fume_jax.predict` runs, by name: as if exported and opened again."""
    from configs import fume
    from fume_jax.inference.backends import FORMATS
    from fume_jax.inference.card import create_card

    config = fume.get_config()
    config.data.height, config.data.width = size
    card, model = create_card(config, 0, {}), create_model(config)
    model.eval()
    inputs = {name: batch[name] for name in ("co2_frame", "ch4_frame", "modality_mask")}
    names = {"weights": "JAX, host to host", "stablehlo": "StableHLO, host to host"}
    if all(map(importlib.util.find_spec, ("onnx", "onnxscript", "onnxruntime"))):
        names["onnx"] = "ONNX Runtime"
    calls = {}
    with tempfile.TemporaryDirectory() as folder:
        for format, name in names.items():
            backend = FORMATS[format]
            path = Path(folder) / f"model{backend.ending}"
            backend.write(path, model, card)
            calls[name] = functools.partial(backend(path), **inputs)
    return calls


def training(report: Report, options: Options) -> None:
    """A training step, on the same batch again and again."""
    from benchmarks import peer

    for batch_size in options.training_batches:
        needed, free = batch_size * BYTES_A_PAIR, psutil.virtual_memory().available
        if needed * options.size[0] * options.size[1] / (480 * 640) > free:
            why = f"it may take {needed / 1e9:.0f} GB of memory, {free / 1e9:.0f} are free"
            report.leave_out(f"training, batch {batch_size}", why)
            continue
        batch = ours.random_batch(batch_size, *options.size)
        calls = {"JAX": ours.TrainingStep(batch), EAGER: peer.TrainingStep(batch)}
        if AMP in options.peers:
            calls[AMP] = peer.TrainingStep(batch, amp=True)
        if COMPILED in options.peers:
            calls[COMPILED] = peer.TrainingStep(batch, compiled=True)
        timings = alternate(calls, repeats=options.repeats)
        report.compare("training", timings, batch_size, to=EAGER)
        _account(report, options, "training", calls["JAX"], batch_size, timings["JAX"].seconds)
        peer.release()


def _account(report, options, task, call, batch_size, seconds):
    """Rows of what bounds our side, and its trace if asked for."""
    ceiling = ceilings("float32", 2048 if options.size == (480, 640) else 512, 256)
    work = work_of(call.compiled, call.lowered)
    report.add("account", task=task, batch=batch_size, dtype="float32", **account(work, ceiling, seconds))
    report.ceiling("float32", ceiling)
    if options.profile:
        with jax.profiler.trace(f"{options.profile}/{task}_{batch_size}"):
            for _ in range(3):
                jax.block_until_ready(call())


def memory(report: Report, options: Options) -> None:
    """Time to the first training step and peak of memory, in processes that find nothing compiled, and then again."""
    for batch_size in options.training_batches[:2]:
        for name in ("JAX", EAGER, *options.peers):
            with tempfile.TemporaryDirectory() as cache:
                for found in ("empty", "filled") if name in ("JAX", COMPILED) else ("none",):
                    row = {"batch": batch_size, "implementation": name, "compilation_cache": found}
                    report.add("memory", **row, **in_own_process(_first_steps, name, batch_size, options.size, cache))


def in_own_process(function, *arguments):
    """What a function returns in a fresh interpreter."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _first_steps(name, batch_size, size, cache):
    """Seconds to the end of the first step of three, and the peak of memory, the batch and libraries being there."""
    keep_freed_memory()  # as our commands do
    batch = ours.random_batch(batch_size, *size)
    if name == "JAX":
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_compilation_cache_dir", cache)
        create = functools.partial(ours.TrainingStep, jax.device_put(batch))
    else:
        from benchmarks import peer

        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        create = functools.partial(peer.TrainingStep, batch, amp=name == AMP, compiled=name == COMPILED)
    before, start = psutil.Process().memory_info().rss, time.perf_counter()
    step = create()
    jax.block_until_ready(step())
    found = {"seconds_to_first_step": time.perf_counter() - start}
    if name == "JAX":
        found |= {"of_them_tracing": step.lower_seconds, "of_them_compiling": step.compile_seconds}
    for _ in range(2):
        jax.block_until_ready(step())
    # Unlike ru_maxrss, the high-water mark has nothing of the parent's.
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    return found | {"peak_mb": (peak - before) / 1e6}


def input_pipeline(report: Report, options: Options) -> None:
    """Training batches of configs/fume.py, read, augmented and put on the device, with nobody else at work."""
    data = options.data or _rendered(options)
    seconds = in_own_process(_batch_seconds, data, options.size, options.repeats)
    row = {"batch": ours.BATCH_SIZE, "pairs_per_second": ours.BATCH_SIZE / seconds, "cores": os.cpu_count()}
    report.add("input", dataset=Path(data).parts[-2], **row, runs=options.repeats)


def _batch_seconds(data, size, repeats):
    """Median over runs of five batches each, of one batch."""
    from configs import fume
    from fume_jax.data.dataset import Dataset
    from fume_jax.runtime.mesh import create_mesh

    jax.config.update("jax_platforms", "cpu")
    config = fume.get_config()
    config.data.height, config.data.width = size
    batches = build.training_batches(config, Dataset(data), create_mesh(), 0)
    for _ in range(config.data.prefetch):
        next(batches)
    return alternate({"": lambda: next(batches)}, repeats=repeats, steps=5)[""].seconds


def _rendered(options):
    """Folder of a simulated dataset of about 200 training pairs."""
    import tensorflow_datasets as tfds

    from datasets.synthetic_ogi.synthetic_ogi import PUBLISHED_FRAMES, SyntheticOgi, SyntheticOgiConfig

    height, width = options.size
    config = SyntheticOgiConfig(
        name="benchmark",
        description="For benchmarks: recordings as in `published`, fewer of them.",
        recordings={ph: {"both": 2, "co2": 1, "ch4": 0} for ph in PUBLISHED_FRAMES},
        splits={"train": 0.6, "val": 0.2, "test": 0.2},
        frames=6,
        copies=2,
        height=height,
        width=width,
    )
    tfds.disable_progress_bar()
    builder = SyntheticOgi(config=config, data_dir=options.scratch, file_format="array_record")
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return str(builder.data_dir)


def epoch(report: Report, options: Options) -> None:
    """An epoch as a user trains it, with augmentation, checkpoint and validation, by the command for it.

    Three of about 200 pairs, of which the first, which compiles, is not counted; the published one is EXTRAPOLATED by
    its pairs: training by those it trains on, all else by those it validates on.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from fume_jax.data.dataset import Dataset

    data, workdir = _rendered(options), f"{options.scratch}/run"
    height, width = options.size
    changes = {"data.path": data, "data.height": height, "data.width": width, "train.epochs": 3}
    command = [sys.executable, "-m", "fume_jax.main", "--config=configs/fume.py", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - start
    events = EventAccumulator(f"{workdir}/events").Reload()
    ends = events.Scalars("val/loss")
    pairs, val_pairs = ends[0].step * ours.BATCH_SIZE, len(Dataset(data).split("val"))
    speed, waited = (
        statistics.median(event.value for event in events.Scalars(f"speed/{name}") if event.step > ends[0].step)
        for name in ("pairs_per_second", "input_wait")
    )
    seconds = (ends[-1].wall_time - ends[0].wall_time) / (len(ends) - 1)
    rest = seconds - pairs / speed
    report.add(
        "epoch",
        pairs=pairs,
        seconds=seconds,
        pairs_per_second=speed,
        input_wait=waited,
        seconds_of_all_but_training=rest,
        EXTRAPOLATED_seconds_of_4383_pairs=ours.PAIRS / speed + rest * ours.VALIDATION_PAIRS / val_pairs,
        seconds_of_the_command=whole,
    )


PARTS = {
    "inference": inference,
    "training": training,
    "memory": memory,
    "input": input_pipeline,
    "epoch": epoch,
}
