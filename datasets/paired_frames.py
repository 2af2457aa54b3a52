"""Datasets of paired frames: their features, which the trainer's input pipeline reads, and their TFDS builder.

Pixels are stored as raw bytes: array_record compresses them, and reading needs neither TensorFlow nor a PNG decoder.
"""

import contextlib
import functools
import hashlib
import itertools
import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import tensorflow_datasets as tfds
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from fume_jax.data.dataset import check_path
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import full_disk, lock
from fume_jax.runtime.prefetch import prefetch_map
from fume_jax.runtime.preflight import check_free_space
from fume_jax.runtime.workers import follow_parent
from fume_jax.schema import CLASSES, GASES

# TFDS holds the examples of a shard in memory while it writes them.
BYTES_PER_SHARD = 200e6
# Share of raw bytes that compression leaves. Measured at 640x480 (320x240): simulated 0.22 (0.28), filmed 0.18 (0.26).
STORED_SHARE = 0.3


def paired_frames(height: int, width: int, extra: dict) -> tfds.features.FeaturesDict:
    """Returns the features of one pair of frames; `extra` adds those of a single dataset.

    Masks hold the values of `fume_jax.schema`: classes, and NOT_GAS and IGNORE. A missing gas has a frame and a mask of
    zeros and a 0 in `modality_mask`. `recording_index` numbers connected groups
    of recordings over all splits: pairs that share a recording, directly or through other pairs, have one number, so
    pairs of different numbers are independent. `frame_index` counts within a group.

    The metadata of a dataset may hold `bounds`, scores that bound the task, `leak`, a sentence about recordings that
    several splits share, and `digest`, of all examples in their order.
    """
    frame = tfds.features.Tensor(shape=(height, width, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    mask = tfds.features.Tensor(shape=(height, width), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    common = {
        "modality_mask": tfds.features.Tensor(shape=(len(GASES),), dtype=np.float32),
        "label": tfds.features.ClassLabel(names=CLASSES),
        "ph": np.float32,
        "recording_index": np.int32,
        "frame_index": np.int32,
    }
    frames, masks = {f"{gas}_frame": frame for gas in GASES}, {f"{gas}_mask": mask for gas in GASES}
    return tfds.features.FeaturesDict(frames | masks | common | extra)


def prefetch_with_bar(pool: Executor, function: Callable, items: Sequence, *, desc: str, unit: str) -> Iterator:
    """Applies `prefetch_map` with a few items per core ahead, and shows a progress bar."""
    results = prefetch_map(pool, function, items, depth=4 * os.cpu_count())
    yield from tqdm(results, total=len(items), desc=desc, unit=unit, disable=None)


@contextlib.contextmanager
def preparing(data_dir: str, dataset: str, name: str, *, flag: str = "--name") -> Iterator[None]:
    """Holds a lock on the preparation of a dataset `name` in `data_dir`, and removes what killed ones have left.

    TFDS would prepare a dataset twice at once, and lose the later one at the end. The config is `name`, which may be
    followed by the size of the frames. Raises UserError if another process prepares it, or if `name` is no file name.
    """
    if not re.fullmatch(r"\w[\w.+-]{0,199}", name):
        raise UserError(f"The name of a dataset is {name!r}; expected up to 200 letters, digits, and any of _.+-")
    check_path(data_dir)
    folder = Path(data_dir) / dataset
    with lock(folder, name=f".{name}.lock", doing=f"preparing {name} in", flag=flag):
        for config in folder.iterdir():
            if re.fullmatch(rf"{re.escape(name)}(_\d+x\d+)?", config.name):
                for left in config.glob("incomplete.*"):
                    shutil.rmtree(left)
        yield


def create_process_pool() -> ProcessPoolExecutor:
    """Returns a pool of processes, one per core, that end with this one however it ends."""
    # Each worker is a fresh interpreter, because forking a process that runs threads can hang it.
    return ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn"), _start_worker)


def _start_worker():
    # There is a worker for each core; on many cores those that spread their products of matrices wait for each other.
    cv2.setNumThreads(1)
    threadpool_limits(1)
    follow_parent()


class _Info(tfds.core.DatasetInfo):
    """Information on a dataset that is not asked for on the network, for which TFDS makes a temporary folder."""

    def initialize_from_bucket(self):
        pass


class PairedFramesBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """TFDS builder that makes examples in parallel and writes them in order. It needs no TensorFlow.

    The config of a subclass has the `height` and `width` of the frames, and its `_create_pool` returns an executor.
    """

    def _create_info(self, extra: dict, **metadata) -> tfds.core.DatasetInfo:
        return _Info(
            builder=self,
            description=self.__doc__,
            features=paired_frames(self.builder_config.height, self.builder_config.width, extra),
            metadata=tfds.core.MetadataDict(**metadata),
        )

    def _download_and_prepare(self, dl_manager, download_config):
        self._digest = hashlib.blake2b(digest_size=16)
        self._pool = self._create_pool()
        try:
            with full_disk(self.data_dir_root, "the dataset"):
                super()._download_and_prepare(dl_manager, download_config)
        finally:
            self._pool.shutdown(cancel_futures=True)
        self.info.metadata["digest"] = self._digest.hexdigest()

    def _shards(self, function: Callable, items: dict[str, Sequence], *, pairs: int, most_pairs: int) -> dict:
        """Returns the shards of each split, functions that TFDS calls one after the other.

        `function` makes a result of each of the `items` of a split, and `_keyed` makes (key, example) of each of its
        pairs: `most_pairs` at most, and `pairs` in all. Raises UserError unless the disk has room for them.
        """
        pair_bytes = 4 * self.builder_config.height * self.builder_config.width
        check_free_space(self.data_dir_root, STORED_SHARE * pairs * pair_bytes, f"A dataset of {pairs:,} pairs")
        size = max(1, round(BYTES_PER_SHARD / (most_pairs * pair_bytes)))

        def write(split, results, length):
            for result in itertools.islice(results, length):
                for key, example in self._keyed(split, result):
                    self._add_to_digest(split, key, example)
                    yield key, example

        shards = {}
        for split, own in items.items():
            results = prefetch_with_bar(self._pool, function, own, desc=f"prepare {split}", unit="item")
            lengths = [min(size, len(own) - start) for start in range(0, len(own), size)]
            shards[split] = [functools.partial(write, split, results, length) for length in lengths]
        return shards

    def _add_to_digest(self, split, key, example):
        self._digest.update(f"{split}/{key}".encode())
        for name, value in sorted(example.items()):
            value = np.asarray(value)
            self._digest.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
