"""Batches of a dataset on the devices: what training, evaluation and pictures read."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from fume_jax.data import pipeline
from fume_jax.data.dataset import Dataset
from fume_jax.data.device_cache import DeviceCache, decode, decoded_bytes, decoded_spec
from fume_jax.data.pipeline import ReadOptions
from fume_jax.learning.augment import RandomOperation
from fume_jax.runtime import preflight
from fume_jax.runtime.console import Console
from fume_jax.runtime.mesh import all_gather, shard_batch, to_devices

# Where decoded examples are kept; see `config.data.cache`.
CACHES = ("auto", "none", "device")
# The splits that training reads again and again.
CACHED_SPLITS = ("train", "val")

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """What batches hold, and how they are read.

    `height` and `width` are those of the frames, pixels; batch sizes are over all devices; `sampling` and
    `augmentation` are as in `pipeline.training_batches`; `cache` is one of `CACHES`; `seed` is that of the run.
    """

    height: int
    width: int
    train_batch_size: int
    eval_batch_size: int
    sampling: str
    augmentation: Sequence[RandomOperation]
    seed: int
    cache: str
    read: ReadOptions


class Loader:
    """Reads batches of a dataset and puts them on the devices of a mesh."""

    def __init__(self, dataset: Dataset, options: DataOptions, mesh: Mesh, console: Console):
        self.dataset, self.options, self._mesh, self._console = dataset, options, mesh, console
        self._size = {"height": options.height, "width": options.width}
        self._caches: dict[str, DeviceCache] = {}

    def train(self, start_step: int = 0) -> Iterator[Batch]:
        """Yields endless training batches from `start_step` on.

        Decodes what `options.cache` says is to be kept, which `split` then reads too.
        """
        if self.cache == "device":
            preflight.check_device_memory(self.cache_bytes)
            self._caches = {split: self._decode(split) for split in CACHED_SPLITS}
        labels = self._caches["train"].arrays["label"] if self._caches else self.dataset.labels("train")
        batches = pipeline.training_batches(
            self.dataset.split("train"),
            np.asarray(labels),
            batch_size=self.options.train_batch_size,
            **self._size,
            sampling=self.options.sampling,
            augmentation=self.options.augmentation,
            seed=self.options.seed,
            start_step=start_step,
            read_options=self.options.read,
            requests_only="train" in self._caches,
        )
        return self._on_devices("train", batches)

    def split(self, name: str) -> Iterator[Batch]:
        """Yields one pass over a split in order, every example once, then padding.

        Batches are rounded up to what the devices can share evenly. Without training before it, nothing is worth
        keeping: a split that is in no cache is decoded on the way.
        """
        batches = pipeline.evaluation_batches(
            self.dataset.split(name),
            batch_size=self._shareable(self.options.eval_batch_size),
            **self._size,
            read_options=self.options.read,
            requests_only=name in self._caches,
        )
        return self._on_devices(name, batches)

    def num_batches(self, name: str) -> int:
        """Returns how many batches `split` yields."""
        return -(-len(self.dataset.split(name)) // self._shareable(self.options.eval_batch_size))

    def examples(self, name: str, indices: Sequence[int]) -> Batch:
        """Returns the examples of a split at those indices, and padding, as one batch; every process reads all."""
        batch_size = self._shareable(len(indices))
        batch = pipeline.chosen_batch(self.dataset.split(name), indices, batch_size=batch_size, **self._size)
        return shard_batch(batch, self._mesh)

    @functools.cached_property
    def cache(self) -> str:
        """Where decoded examples are kept: `options.cache`, or what `auto` comes to on these devices."""
        if self.options.cache != "auto":
            return self.options.cache
        # All processes have to agree, whatever devices they have.
        memory = all_gather({"": np.array([preflight.device_memory()])})[""].min()
        return "device" if self.cache_bytes < memory / 2 else "none"

    @property
    def cache_bytes(self) -> int:
        """Bytes that a device cache of the dataset takes on each device."""
        return decoded_bytes(sum(len(self.dataset.split(split)) for split in CACHED_SPLITS), **self._size)

    def _decode(self, split: str) -> DeviceCache:
        source = self.dataset.split(split)
        return DeviceCache(decoded_spec(len(source), **self._size), self._decoded_chunks(split, source), self._mesh)

    def _decoded_chunks(self, split: str, source: Sequence[dict]) -> Iterator[dict[str, np.ndarray]]:
        self._console.info(f"decoding the {len(source):,} pairs of {split}")
        pipeline.one_thread_per_image()
        read = functools.partial(pipeline.read_example, source, **self._size)
        with self._console.bar(total=len(source), unit="pair", desc=f"decoding {split}") as bar:
            for arrays in decode(read, len(source), self.options.read.num_threads):
                yield arrays
                bar.update(len(arrays["label"]))

    def _on_devices(self, split: str, batches: Iterable[dict]) -> Iterator[Batch]:
        if split in self._caches:
            return self._caches[split].batches(batches)
        return to_devices(batches, self._mesh)

    def _shareable(self, batch_size: int) -> int:
        """Rounds up to what the devices can share evenly."""
        return -(-batch_size // self._mesh.size) * self._mesh.size
