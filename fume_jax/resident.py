"""The examples of a split in the memory of the devices, where batches are gathered and augmented."""

import functools
from collections.abc import Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from fume_jax import augment_device, sharding
from fume_jax.decoded import Arrays, example_of
from fume_jax.vocabulary import GASES


class Resident:
    """A copy of some examples on every device of the mesh."""

    def __init__(self, spec: dict[str, jax.ShapeDtypeStruct], chunks: Iterable[Arrays], mesh: Mesh):
        """Puts them there, so that the host holds no more than some chunks at a time.

        Args:
          spec: shapes and dtypes of all of them.
          chunks: the arrays, some examples after another; every process gives all.
          mesh: of all devices.
        """
        everywhere = sharding.replicated(mesh)
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

    def batches(self, orders: Iterable[Mapping]) -> Iterator[dict[str, jax.Array]]:
        """The batches that are ordered, one of them ahead of the step that takes it.

        Args:
          orders: `example_index` int32 [B], -1 for padding, and `plan`, plans of `augment.py` stacked, or none: this
            process's share.
        """
        ahead = None
        for order in sharding.to_devices(orders, self._mesh):
            batch = self.gather(self.arrays, order)
            if ahead is not None:
                yield ahead
            ahead = batch
        if ahead is not None:
            yield ahead


def _fill(whole, part, start):
    return jax.tree.map(lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, start, 0), whole, part)


def _gather(arrays, orders):
    return jax.vmap(functools.partial(_example, arrays))(orders)


def _example(arrays, order):
    """One example of a batch, see `fume_jax.vocabulary`."""
    index = order["example_index"]
    valid = index >= 0
    example = example_of(arrays, jnp.maximum(index, 0))
    example["modality_mask"] *= valid
    changed = augment_device.apply(example, order["plan"])
    return {
        **{f"{gas}_frame": changed[f"{gas}_frame"] for gas in GASES},
        **{f"{gas}_mask": changed[f"{gas}_mask"] for gas in GASES},
        "modality_mask": changed["modality_mask"],
        "labels": jnp.where(valid, example["label"], 0),
        "valid": valid,
        "example_index": index,
        "recording_index": jnp.where(valid, example["recording_index"], -1),
    }
