"""The decoded examples of a split in the memory of the devices, where batches are gathered and augmented."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fume_jax.data.dataset import OTHER_KEYS, PIXEL_KEYS
from fume_jax.learning import augment_jax
from fume_jax.runtime.mesh import replicated, to_devices
from fume_jax.runtime.prefetch import one_ahead, prefetch_map
from fume_jax.schema import GASES, make_example

# Examples that are decoded before they are passed on.
CHUNK = 64

Arrays = dict[str, np.ndarray]


def decoded_spec(count: int, height: int, width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of `count` decoded examples; `pixels` holds `PIXEL_KEYS` in their order."""
    return {
        "pixels": jax.ShapeDtypeStruct((count, len(PIXEL_KEYS), height, width), np.uint8),
        "modality_mask": jax.ShapeDtypeStruct((count, len(GASES)), np.float32),
        "label": jax.ShapeDtypeStruct((count,), np.int32),
        "recording_index": jax.ShapeDtypeStruct((count,), np.int32),
    }


def decoded_bytes(count: int, height: int, width: int) -> int:
    """Bytes that `count` decoded examples take."""
    return sum(spec.size * spec.dtype.itemsize for spec in decoded_spec(count, height, width).values())


def decode(read: Callable[[int], dict], count: int, num_threads: int) -> Iterator[Arrays]:
    """Yields examples `read(0)` to `read(count - 1)`, read by threads, as arrays of up to `CHUNK` examples."""
    with ThreadPoolExecutor(num_threads) as pool:
        examples = prefetch_map(pool, read, range(count), depth=2 * num_threads)
        while chunk := list(itertools.islice(examples, CHUNK)):
            spec = decoded_spec(len(chunk), *chunk[0]["co2_mask"].shape)
            arrays = {key: np.array([example[key] for example in chunk], spec[key].dtype) for key in OTHER_KEYS}
            pixels = [np.squeeze(example[key]) for example in chunk for key in PIXEL_KEYS]
            yield arrays | {"pixels": np.stack(pixels).reshape(spec["pixels"].shape)}


class DeviceCache:
    """A copy of some decoded examples on every device of the mesh."""

    def __init__(self, spec: dict[str, jax.ShapeDtypeStruct], chunks: Iterable[Arrays], mesh: Mesh):
        """Copies the examples chunk by chunk, so that the host holds no more than some chunks at a time.

        Args:
          spec: shapes and dtypes of all examples, see `decoded_spec`.
          chunks: their arrays, some examples after another; every process gives all.
          mesh: of all devices.
        """
        everywhere = replicated(mesh)
        create = jax.jit(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), spec), out_shardings=everywhere)
        self.arrays = create()
        fill = jax.jit(_fill, donate_argnums=0, in_shardings=everywhere, out_shardings=everywhere)
        start = 0
        for arrays in chunks:
            self.arrays = fill(self.arrays, arrays, np.int32(start))
            start += len(arrays["label"])
        self._mesh = mesh
        shards = {"in_specs": (PartitionSpec(), PartitionSpec("data")), "out_specs": PartitionSpec("data")}
        self.gather = jax.jit(jax.shard_map(_gather, mesh=mesh, **shards))

    def batches(self, requests: Iterable[Mapping]) -> Iterator[dict[str, jax.Array]]:
        """Yields the batches that sample requests name, one of them ahead of the step that takes it.

        Args:
          requests: `example_index` int32 [B], -1 for padding, and `plan`, plans of `learning.augment` stacked, or none:
            this process's share.
        """
        return one_ahead(self.gather(self.arrays, request) for request in to_devices(requests, self._mesh))


def _fill(whole, part, start):
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0), whole, part)


def _gather(arrays, requests):
    return jax.vmap(functools.partial(_example, arrays))(requests)


def _example(arrays, request):
    """Builds the example that a request names, see `fume_jax.schema`."""
    index = request["example_index"]
    valid = index >= 0
    row = {key: x[jnp.maximum(index, 0)] for key, x in arrays.items()}
    pixels = dict(zip(PIXEL_KEYS, row["pixels"], strict=True))
    example = {key: x[..., None] if key.endswith("frame") else x for key, x in pixels.items()}
    example["modality_mask"] = row["modality_mask"] * valid
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
