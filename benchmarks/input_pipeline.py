"""Training examples a second of our loader against a PyTorch DataLoader with Albumentations, augmentation included.

    pip install -e ".[benchmarks]"
    python -m datasets.synthetic_ogi --data_dir=data --name=published
    python -m benchmarks.input_pipeline

Both read the validation split of `published` at 640x480 in shuffled batches of 8 pairs and apply the operations of
configs/fume.py: ours from the dataset on disk with threads, the peer from PNG files, as the reference does, with as
many workers. Each measurement is a process of its own that may use the given cores only; sides take turns; medians.

The peer gets what is fastest of Albumentations: single-channel frames, no affine part of the elastic operation, OpenCV
to decode.
"""

import collections
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from absl import app, flags, logging

from benchmarks.timing import table
from configs import fume
from fume_jax.config import create_augmentation
from fume_jax.data import transforms
from fume_jax.data.dataset import Dataset, Reading, training_batches
from fume_jax.learning import augment
from fume_jax.schema import GASES

_DATA = flags.DEFINE_string("data", "data/synthetic_ogi/published/2.0.0", "Prepared dataset.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "Processes a case.", lower_bound=1)
_BATCHES = flags.DEFINE_integer("batches", 60, "Timed in each.", lower_bound=1)
# What a process of its own measures: side, cores, 1 with elastic, folder of PNG files.
_CASE = flags.DEFINE_list("case", None, "Used by the benchmark itself.")

SPLIT, BATCH_SIZE, WARM_UP = "val", 8, 10
STAGES = ("read", "decode", "geometry", "grey levels", "batch")
GEOMETRY = (augment.HorizontalFlip, augment.ShiftScaleRotate, augment.Elastic)


def main(_) -> None:
    logging.set_verbosity(logging.WARNING)
    if _CASE.value:
        side, cores, elastic, folder = _CASE.value
        print(json.dumps(_measure(side, int(cores), elastic == "1", folder)))
        return
    every_core = os.cpu_count()
    cores = sorted({1, min(2, every_core), every_core})
    cases = [(side, n, elastic) for elastic in (1, 0) for n in cores for side in ("ours", "peer")]
    with tempfile.TemporaryDirectory() as folder:
        dataset = Dataset(_DATA.value)
        png_bytes = _write_png_files(dataset, folder)
        found = collections.defaultdict(list)
        for _ in range(_REPEATS.value):
            for side, n, elastic in cases:
                found[side, n, elastic].append(_in_own_process(side, n, elastic, folder))
        turns = [{"ours": _our_stages(dataset), "peer": _peer_stages(folder)} for _ in range(_REPEATS.value)]
    print(_speed_table(found, cases))
    print("\nmilliseconds of one core a pair, all operations\n")
    medians = {side: map(statistics.median, zip(*(t[side] for t in turns), strict=True)) for side in turns[0]}
    print(table(["", *STAGES], [[side, *(f"{ms:.1f}" for ms in times)] for side, times in medians.items()]))
    own_bytes = sum(f.stat().st_size for f in Path(_DATA.value).glob(f"*-{SPLIT}.array_record*"))
    print(f"\non disk: {own_bytes / 1e6:.0f} MB, as PNG files {png_bytes / 1e6:.0f} MB")


def _speed_table(found, cases):
    rows = []
    for _, n, elastic in cases[::2]:
        speed, memory = (
            {side: statistics.median(run[key] for run in found[side, n, elastic]) for side in ("ours", "peer")}
            for key in ("speed", "memory")
        )
        speeds = [f"{speed['ours']:.0f}", f"{speed['peer']:.0f}", f"{speed['ours'] / speed['peer']:.1f}x"]
        memories = [f"{memory[side] / 1e9:.1f}" for side in ("ours", "peer")]
        rows.append(["all" if elastic else "all but elastic", n, *speeds, *memories])
    header = ["operations", "cores", "pairs/s, ours", "DataLoader", "ratio", "GB of memory, ours", "DataLoader"]
    return table(header, rows)


def _in_own_process(*case):
    case = ",".join(map(str, case))
    options = [f"--data={_DATA.value}", f"--batches={_BATCHES.value}", f"--case={case}"]
    result = subprocess.run([sys.executable, "-m", "benchmarks.input_pipeline", *options], stdout=subprocess.PIPE)
    result.check_returncode()
    return json.loads(result.stdout)


def _measure(side, cores, elastic, folder):
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:cores])
    batches = _our_batches(cores, elastic) if side == "ours" else _peer_batches(cores, elastic, folder)
    for _ in range(WARM_UP):
        next(batches)
    start = time.perf_counter()
    for _ in range(_BATCHES.value):
        next(batches)
    seconds = time.perf_counter() - start
    return {"speed": _BATCHES.value * BATCH_SIZE / seconds, "memory": _memory()}


def _memory():
    """Bytes that this process and its children hold, shared ones counted once."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    lines = "".join(Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in ("self", *children)).splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# --- ours ---


def _operations(elastic):
    config = fume.get_config()
    config.augment.elastic.probability *= elastic
    return create_augmentation(config)


def _our_batches(cores, elastic):
    return training_batches(
        Dataset(_DATA.value),
        split=SPLIT,
        batch_size=BATCH_SIZE,
        height=480,
        width=640,
        sampling="uniform",
        augmentation=_operations(elastic),
        seed=0,
        start_step=0,
        reading=Reading(num_threads=cores, num_workers=0, prefetch=4, timeout_seconds=300.0),
    )


def _our_stages(dataset):
    from fume_jax.data.pipeline import _finish, _read

    cv2.setNumThreads(1)
    source, rng = dataset.split(SPLIT), np.random.default_rng(0)
    geometry = [op for op in _operations(True) if isinstance(op, GEOMETRY)]
    photometry = [op for op in _operations(True) if not isinstance(op, GEOMETRY)]

    def change(operations, example):
        return transforms.apply(example, augment.draw_plan(operations, rng, height=480, width=640))

    records, read_time = _timed(lambda i: source.data_source[i], range(200))
    _, decode_time = _timed(source.dataset_info.features.deserialize_example_np, records, keep=False)
    examples = [_read(source, i, height=480, width=640) for i in range(200)]
    moved, geometry_time = _timed(functools.partial(change, geometry), examples)
    changed, photometry_time = _timed(functools.partial(change, photometry), moved)
    changed = [example | {"example_index": i} for i, example in enumerate(changed)]
    chunks = [changed[i : i + BATCH_SIZE] for i in range(0, 200, BATCH_SIZE)]
    _, batch_time = _timed(lambda chunk: _stack([_finish(example) for example in chunk]), chunks, keep=False)
    return read_time, decode_time, geometry_time, photometry_time, batch_time / BATCH_SIZE


def _stack(examples):
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def _timed(function, items, keep=True):
    """Results, if they are to be kept, and the mean milliseconds of a call."""
    results, times = [], []
    for item in items:
        start = time.perf_counter()
        result = function(item)
        times.append((time.perf_counter() - start) * 1e3)
        if keep:
            results.append(result)
    return results, statistics.fmean(times)


# --- the peer ---


def _write_png_files(dataset, folder):
    """Frames and masks of the split as PNG files; returns their bytes."""
    total = 0
    for index, example in enumerate(dataset.split(SPLIT)):
        for gas, present in zip(GASES, example["modality_mask"], strict=True):
            for kind in ("frame", "mask") if present else ():
                path = Path(folder) / f"{index}_{gas}_{kind}.png"
                cv2.imwrite(str(path), example[f"{gas}_{kind}"])
                total += path.stat().st_size
    return total


def _peer_operations(elastic):
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the internet for a newer version
    import albumentations as A

    geometry = [
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=(-0.1, 0.1), scale=(0.85, 1.15), rotate=(-15, 15), p=0.5),
    ]
    if elastic:
        geometry.append(A.ElasticTransform(alpha=1, sigma=50, p=0.3))
    variance = [deviation / 255 for deviation in (10**0.5, 50**0.5)]
    noise_or_blur = [A.GaussNoise(std_range=variance), A.GaussianBlur(blur_limit=(3, 7)), A.MotionBlur((3, 7))]
    photometry = [
        A.OneOf(noise_or_blur, p=0.3),
        A.RandomBrightnessContrast(0.2, 0.2, p=0.5),
        A.RandomGamma((80, 120), p=0.3),
        A.Normalize(mean=0.5, std=0.5),
    ]
    targets = {"ch4_image": "image", "co2_mask": "mask", "ch4_mask": "mask"}
    return [A.Compose(operations, additional_targets=targets) for operations in (geometry, photometry)]


def _peer_batches(cores, elastic, folder):
    import torch

    pairs = _PngPairs(folder, _peer_operations(elastic))
    options = {"num_workers": cores, "persistent_workers": True, "shuffle": True, "drop_last": True}
    loader = torch.utils.data.DataLoader(pairs, batch_size=BATCH_SIZE, **options)
    while True:
        yield from loader


class _PngPairs:
    """A map-style dataset for the DataLoader."""

    def __init__(self, folder, operations):
        self.paths = _paths(folder)
        self.operations = operations

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        import torch

        images = _decode(_bytes_of(self.paths[index]))
        for operation in self.operations:
            images = operation(**images)
        present = [float(f"{gas}_frame" in self.paths[index]) for gas in GASES]
        frames = [torch.from_numpy(images[name])[None] for name in ("image", "ch4_image")]
        masks = [torch.from_numpy(images[f"{gas}_mask"]).long() for gas in GASES]
        return *frames, *masks, torch.tensor(present)


def _paths(folder):
    """Files of each example by what they hold."""
    paths = collections.defaultdict(dict)
    for path in sorted(Path(folder).iterdir()):
        index, what = path.stem.split("_", 1)
        paths[int(index)][what] = path
    return list(paths.values())


def _bytes_of(paths):
    return {what: np.fromfile(path, np.uint8) for what, path in paths.items()}


def _decode(files):
    names = {"image": "co2_frame", "ch4_image": "ch4_frame", "co2_mask": "co2_mask", "ch4_mask": "ch4_mask"}
    nothing = np.zeros((480, 640), np.uint8)
    return {
        name: cv2.imdecode(files[what], cv2.IMREAD_GRAYSCALE) if what in files else nothing
        for name, what in names.items()
    }


def _peer_stages(folder):
    import torch

    cv2.setNumThreads(1)
    geometry, photometry = _peer_operations(True)
    files, read_time = _timed(_bytes_of, _paths(folder)[:200])
    images, decode_time = _timed(_decode, files)
    moved, geometry_time = _timed(lambda images: geometry(**images), images)
    changed, photometry_time = _timed(lambda images: photometry(**images), moved)
    chunks = [[tuple(example.values()) for example in changed[i : i + BATCH_SIZE]] for i in range(0, 200, BATCH_SIZE)]
    _, batch_time = _timed(torch.utils.data.default_collate, chunks, keep=False)
    return read_time, decode_time, geometry_time, photometry_time, batch_time / BATCH_SIZE


if __name__ == "__main__":
    app.run(main)
