"""Loads batches of a dataset onto the devices, for training, evaluation and pictures."""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from fume_jax.data import pipeline
from fume_jax.data.dataset import Dataset
from fume_jax.data.device_cache import DeviceCache, decode, decoded_spec, nbytes
from fume_jax.data.pipeline import DataOptions
from fume_jax.runtime import preflight
from fume_jax.runtime.console import Console
from fume_jax.runtime.mesh import all_gather, shard_batch, to_devices

# Places to keep decoded examples; see `config.data.cache`.
CACHES = ("auto", "none", "device")
CACHED_SPLITS = ("train", "val")  # those that training reads again and again

Batch = dict[str, jax.Array]


class Loader:
    """Reads batches of a dataset and puts them on the devices of a mesh."""

    def __init__(self, dataset: Dataset, options: DataOptions, mesh: Mesh, console: Console):
        self.dataset, self.options, self.mesh, self._console = dataset, options, mesh, console
        self._size = {"height": options.height, "width": options.width}
        self._caches: dict[str, DeviceCache] = {}

    def train(self, start_step: int = 0) -> Iterator[Batch]:
        """Yields endless training batches from `start_step` on; fills the device cache, if any, for `split` too."""
        if self.cache == "device":
            preflight.check_device_memory(self.cache_bytes)
            self._caches = {split: self._decode(split) for split in CACHED_SPLITS}
        labels = np.asarray(self._caches["train"].arrays["label"] if self._caches else self.dataset.labels("train"))
        batches = pipeline.training_batches(
            self.dataset.split("train"), labels, self.options, start_step=start_step, requests_only=bool(self._caches)
        )
        return self._on_devices("train", batches)

    def split(self, name: str, extend: Callable[[dict], dict] | None = None) -> Iterator[Batch]:
        """Yields one pass over a split in order, every example once, then padding; fills no cache.

        Batch sizes are rounded up to a multiple of the number of devices. `extend` returns this process's share of a
        batch with further arrays [B, ...], on the host; the split must not be in a device cache then.
        """
        source, batch_size = self.dataset.split(name), self._shareable(self.options.eval_batch_size)
        requests_only = name in self._caches
        batches = pipeline.evaluation_batches(source, self.options, batch_size, requests_only=requests_only)
        return self._on_devices(name, map(extend, batches) if extend else batches)

    def num_batches(self, name: str) -> int:
        """Returns the number of batches that `split` yields."""
        return -(-len(self.dataset.split(name)) // self._shareable(self.options.eval_batch_size))

    def examples(self, name: str, indices: Sequence[int]) -> Batch:
        """Returns the examples of a split at `indices`, and padding, as one batch; every process reads all of them."""
        source, batch_size = self.dataset.split(name), self._shareable(len(indices))
        return shard_batch(pipeline.chosen_batch(source, indices, self.options, batch_size), self.mesh)

    @functools.cached_property
    def cache(self) -> str:
        """Returns the place of decoded examples: `options.cache`, with `auto` resolved for these devices."""
        if self.options.cache != "auto":
            return self.options.cache
        # All processes have to agree, even on different devices.
        memory = all_gather({"": np.array([preflight.device_memory()])})[""].min()
        return "device" if self.cache_bytes < memory / 2 else "none"

    @property
    def cache_bytes(self) -> int:
        """Returns the size in bytes of a device cache of the dataset on each device."""
        count = sum(len(self.dataset.split(split)) for split in CACHED_SPLITS)
        return nbytes(decoded_spec(count, **self._size))

    def _decode(self, split: str) -> DeviceCache:
        source = self.dataset.split(split)
        self._console.info(f"decoding the {len(source):,} pairs of {split}")
        pipeline.one_thread_per_image()
        read = functools.partial(pipeline.read_example, source, **self._size)
        with self._console.bar(total=len(source), unit="pair", desc=f"decoding {split}") as bar:

            def chunks():
                for arrays in decode(read, len(source), self.options.read.num_threads):
                    yield arrays
                    bar.update(len(arrays["label"]))

            return DeviceCache(decoded_spec(len(source), **self._size), chunks(), self.mesh)

    def _on_devices(self, split: str, batches: Iterable[dict]) -> Iterator[Batch]:
        return self._caches[split].batches(batches) if split in self._caches else to_devices(batches, self.mesh)

    def _shareable(self, batch_size: int) -> int:
        return -(-batch_size // self.mesh.size) * self.mesh.size
