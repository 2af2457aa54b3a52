"""Caches the decoded examples of a split in device memory, where batches are gathered and augmented."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fume_jax.data.dataset import OTHER_KEYS, PIXEL_KEYS
from fume_jax.learning import augment_jax
from fume_jax.runtime.mesh import replicated, to_devices
from fume_jax.runtime.prefetch import one_ahead, prefetch_map
from fume_jax.schema import GASES, make_example

# Examples that are copied to the devices at once.
CHUNK = 64

Arrays = dict[str, np.ndarray]


def decoded_spec(count: int, height: int, width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes and dtypes of `count` decoded examples; `pixels` stacks `PIXEL_KEYS` in their order."""
    return {
        "pixels": jax.ShapeDtypeStruct((count, len(PIXEL_KEYS), height, width), np.uint8),
        "modality_mask": jax.ShapeDtypeStruct((count, len(GASES)), np.float32),
        "label": jax.ShapeDtypeStruct((count,), np.int32),
        "recording_index": jax.ShapeDtypeStruct((count,), np.int32),
    }


def nbytes(tree: Any) -> int:
    """Returns the size of a tree of arrays, or of their shapes and dtypes, in bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def decode(read: Callable[[int], dict], count: int, num_threads: int) -> Iterator[Arrays]:
    """Reads examples `read(0)` to `read(count - 1)` in threads and yields them as arrays of up to `CHUNK` examples."""
    with ThreadPoolExecutor(num_threads) as pool:
        examples = prefetch_map(pool, read, range(count), depth=2 * num_threads)
        while chunk := list(itertools.islice(examples, CHUNK)):
            spec = decoded_spec(len(chunk), *chunk[0]["co2_mask"].shape)
            arrays = {key: np.array([example[key] for example in chunk], spec[key].dtype) for key in OTHER_KEYS}
            pixels = [np.squeeze(example[key]) for example in chunk for key in PIXEL_KEYS]
            yield arrays | {"pixels": np.stack(pixels).reshape(spec["pixels"].shape)}


class DeviceCache:
    """Holds a copy of decoded examples on every device of a mesh."""

    def __init__(self, spec: dict[str, jax.ShapeDtypeStruct], chunks: Iterable[Arrays], mesh: Mesh):
        """Copies examples chunk by chunk, so that the host holds only a few chunks at a time.

        `spec` is that of all examples, see `decoded_spec`. Every process passes all chunks; `mesh` has all devices.
        """
        everywhere = replicated(mesh)
        create = jax.jit(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), spec), out_shardings=everywhere)
        self.arrays = create()

        def fill(whole, part, start):
            return jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0), whole, part)

        fill = jax.jit(fill, donate_argnums=0, in_shardings=everywhere, out_shardings=everywhere)
        start = 0
        for arrays in chunks:
            self.arrays = fill(self.arrays, arrays, np.int32(start))
            start += len(arrays["label"])
        self._mesh = mesh
        shards = {"in_specs": (PartitionSpec(), PartitionSpec("data")), "out_specs": PartitionSpec("data")}
        examples = jax.vmap(_example, in_axes=(None, 0))
        self.gather = jax.jit(jax.shard_map(examples, mesh=mesh, **shards))

    def batches(self, requests: Iterable[Mapping]) -> Iterator[dict[str, jax.Array]]:
        """Yields the batches that this process's shares of sample requests name, each prepared one step ahead.

        A request has `example_index` int32 [B], -1 for padding, and `plan`, stacked plans of `learning.augment`, which
        may be empty.
        """
        return one_ahead(self.gather(self.arrays, request) for request in to_devices(requests, self._mesh))


def _example(arrays, request):
    """Builds the example that a sample request names, see `fume_jax.schema`."""
    index = request["example_index"]
    valid = index >= 0
    row = {key: x[jnp.maximum(index, 0)] for key, x in arrays.items()}
    pixels = dict(zip(PIXEL_KEYS, row["pixels"], strict=True))
    example = {key: x[..., None] if key.endswith("frame") else x for key, x in pixels.items()}
    example["modality_mask"] = jnp.where(valid, row["modality_mask"], 0)
    augmented = augment_jax.apply(example, request["plan"])
    return make_example(
        frames={gas: augmented[f"{gas}_frame"] for gas in GASES},
        masks={gas: augmented[f"{gas}_mask"] for gas in GASES},
        modality_mask=augmented["modality_mask"],
        label=jnp.where(valid, row["label"], 0),
        valid=valid,
        example_index=index,
        recording_index=jnp.where(valid, row["recording_index"], -1),
    )
