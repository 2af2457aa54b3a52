"""Training pairs a second of the input pipeline beside a PyTorch DataLoader with Albumentations.

    python -m datasets.synthetic_ogi --data_dir=data --name=published
    python -m benchmarks.input_pipeline

Both augment as configs/fume.py says: fume_jax reads the prepared dataset with threads, the DataLoader PNG files, as the
reference trains, with as many workers. It gets what is fastest of Albumentations: single-channel frames, no affine part
of the elastic operation, OpenCV to decode.
"""

import concurrent.futures
import functools
import importlib
import itertools
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import jax
import numpy as np
from absl import flags

from benchmarks.jax_baseline import EPOCH_PAIRS, random_batch
from benchmarks.report import Report
from configs import fume
from fume_jax.config import data_options
from fume_jax.data.dataset import PIXEL_KEYS, Dataset
from fume_jax.data.loader import Loader
from fume_jax.data.pipeline import read_example
from fume_jax.runtime import cli
from fume_jax.runtime.console import Console
from fume_jax.runtime.malloc import keep_freed_memory
from fume_jax.runtime.mesh import create_mesh

_DATA = flags.DEFINE_string("data", "data/synthetic_ogi/published/3.0.0", "Prepared dataset of the input pipeline.")
flags.declare_key_flag("output")
BATCH_SIZE, WARM_UP_BATCHES, PNG_PAIRS = 8, 10, 1000


def compare(report: Report, table: str, size: tuple[int, int], *, turns: int, **options) -> None:
    """Adds rows of medians of what `measure` returns, called with options in turns and in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        sources = {"torch": _write_png_files(_DATA.value, folder, size), "jax": _DATA.value}
        runs = {name: [] for name in sources}
        for _, name in itertools.product(range(turns), sources):
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                runs[name].append(pool.submit(measure, name, sources[name], size, **options).result())
    medians = {name: {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]} for name in runs}
    for name, row in medians.items():
        speed, baseline = row["pairs_per_second"], medians["torch"]["pairs_per_second"]
        report.add(table, baseline=name, **row, speed_ratio=speed / baseline, epoch_seconds=EPOCH_PAIRS / speed)


def measure(name: str, source, size: tuple[int, int], *, cores: int, train: bool, num_batches: int = 60) -> dict:
    """Measures speed, start and this process's memory on some cores; `train` takes a step with every batch."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    keep_freed_memory()  # as training does
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    times, step = [time.perf_counter()], lambda batch: None
    batches = {"jax": _jax_batches, "torch": _torch_batches}[name](source, size, cores)
    if train:
        step = importlib.import_module(f"benchmarks.{name}_baseline").TrainingStep(random_batch(BATCH_SIZE, *size))
    for batch in itertools.islice(batches, WARM_UP_BATCHES + num_batches):
        jax.block_until_ready(step(batch))
        times.append(time.perf_counter())
    peak_mb = 1.024e-3 * int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
    speed = num_batches * BATCH_SIZE / (times[-1] - times[WARM_UP_BATCHES])
    return {"pairs_per_second": speed, "first_step_seconds": times[1] - times[0], "peak_mb": peak_mb, "cores": cores}


def _jax_batches(data, size, cores):
    config = fume.get_config()
    config.data.update(height=size[0], width=size[1], num_threads=cores, cache="none")
    return Loader(Dataset(data), data_options(config), create_mesh(), Console(quiet=True)).train()


def _write_png_files(data, folder, size):
    """Writes the images of the first training pairs; returns paths by name, modality mask and label of each."""
    source, pairs = Dataset(data).split("train"), []
    for index in range(min(PNG_PAIRS, len(source))):
        example = read_example(source, index, height=size[0], width=size[1])
        # The zeros of an absent gas need no file.
        paths = {key: f"{folder}/{index}_{key}.png" for key in PIXEL_KEYS if example[key].any()}
        for key, path in paths.items():
            cv2.imwrite(path, example[key])
        pairs.append((paths, example["modality_mask"], int(example["label"])))
    return pairs


def _torch_batches(pairs, size, cores):
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the internet for a newer version
    import albumentations as A
    from torch.utils.data import DataLoader

    deviations = tuple(variance**0.5 / 255 for variance in (10, 50))
    degradations = [A.GaussNoise(std_range=deviations), A.GaussianBlur(blur_limit=(3, 7)), A.MotionBlur((3, 7))]
    operations = [
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.1, 0.1), scale=(0.85, 1.15), rotate=(-15, 15), p=0.5),
        A.ElasticTransform(alpha=1, sigma=50, p=0.3),
        A.OneOf(degradations, p=0.3),
        A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
        A.RandomGamma((80, 120), p=0.3),
        A.Normalize(mean=0.5, std=0.5),
    ]
    targets = {"ch4_frame": "image", "co2_mask": "mask", "ch4_mask": "mask"}
    read = functools.partial(_read_batch, size=size, augment=A.Compose(operations, additional_targets=targets))
    options = {"num_workers": cores, "persistent_workers": True, "shuffle": True, "drop_last": True}
    return itertools.chain.from_iterable(itertools.repeat(DataLoader(pairs, BATCH_SIZE, collate_fn=read, **options)))


def _read_batch(pairs, *, size, augment):
    """Decodes and augments a batch in a worker: tensors as of `torch_baseline.torch_batch`."""
    from torch.utils.data import default_collate

    examples = []
    for paths, modality_mask, label in pairs:
        images = {key: np.zeros(size, np.uint8) for key in PIXEL_KEYS}
        images |= {key: cv2.imread(path, cv2.IMREAD_GRAYSCALE) for key, path in paths.items()}
        images = augment(image=images.pop("co2_frame"), **images)
        images["co2_frame"] = images.pop("image")
        example = {key: x[None] if key.endswith("frame") else x.astype(np.int64) for key, x in images.items()}
        examples.append(example | {"modality_mask": modality_mask, "labels": label})
    return default_collate(examples)


def main() -> int:
    """Measures on one core and on all; returns the exit code."""
    report = Report()
    for cores in sorted({1, os.cpu_count()}):
        compare(report, "input pipeline", (480, 640), cores=cores, turns=5, train=False)
    return report.finish()


if __name__ == "__main__":
    cli.run(main)
