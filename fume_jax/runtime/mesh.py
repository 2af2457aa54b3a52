"""Placement of arrays on devices: one mesh axis, `data`. A model of 1.7M parameters needs no other."""

import functools
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.prefetch import one_ahead
from fume_jax.runtime.watchdog import backends_initialized
from fume_jax.schema import batch_spec


def request_determinism() -> None:
    """Has a GPU add in one order and choose kernels without trying them, so that a run can be repeated exactly.

    A CPU is deterministic anyway. Raises RuntimeError once a device was used, after which XLA reads no more flags.
    """
    if backends_initialized():
        raise RuntimeError("Determinism was requested after a device was used; request it before.")
    flags = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"


def create_mesh() -> Mesh:
    """Creates the mesh of all devices of all processes in a row."""
    # In JAX's own order: all share one reduction, for which no order is better, and slices of TPUs know no other.
    return Mesh(np.array(jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the state: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: an equal part of the examples on every device."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(name: str, batch_size: int, devices: int, parts: int = 1) -> None:
    """Raises UserError unless the devices can share each part of a batch evenly; `name` is the key that sets it."""
    shares = devices * parts
    if batch_size % shares:
        in_parts = f" in {parts} parts" if parts > 1 else ""
        advice = f"choose a multiple of {shares}, such as {max(1, batch_size // shares) * shares}"
        raise UserError(f"{name} is {batch_size}, which {devices} devices cannot share evenly{in_parts}; {advice}.")


def abstract_batch(batch_size: int, height: int, width: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns shapes, dtypes and shardings of a batch."""
    spec, sharding = batch_spec(batch_size, height, width), batch_sharding(mesh)
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for name, x in spec.items()}


def describe_mesh(mesh: Mesh) -> str:
    """Returns number and kind of the devices and the number of processes in words."""
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{mesh.size} {mesh.devices.flat[0].device_kind} device(s){processes}"


def to_devices(batches: Iterable[dict], mesh: Mesh) -> Iterator[dict]:
    """Puts each process's share of the batches on its devices, one batch ahead of the step that takes it."""
    put = functools.partial(jax.make_array_from_process_local_data, batch_sharding(mesh))
    return one_ahead(jax.tree.map(put, batch) for batch in batches)


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts on each device its share of a batch that every process holds as a whole."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_callback(x.shape, sharding, x.__getitem__) for name, x in batch.items()}


def replicate_to_hosts(tree):
    """Fetches whole arrays from the devices to the host of every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def local_rows(tree):
    """Fetches the rows, in order, that this process's devices hold of arrays sharded like a batch."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    shards = [sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0) for x in jax.tree.leaves(tree)]
    rows = [np.concatenate(parts) for parts in jax.device_get([[shard.data for shard in parts] for parts in shards])]
    return jax.tree.unflatten(jax.tree.structure(tree), rows)


def all_gather(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joins the rows that each process has of some arrays, equally many, in the order of processes, on all of them."""
    if jax.process_count() == 1:
        return dict(rows)
    # Rows travel as bytes, since the devices would round 64 bits to 32.
    as_bytes = {name: np.ascontiguousarray(x).view(np.uint8).reshape(len(x), -1) for name, x in rows.items()}
    return {
        name: np.ascontiguousarray(x).view(rows[name].dtype).reshape(-1, *rows[name].shape[1:])
        for name, x in multihost_utils.process_allgather(as_bytes, tiled=True).items()
    }


def assert_equal(what: str, text: str, remedy: str) -> None:
    """Raises UserError unless `what`, a noun phrase in the plural, is the same text in all processes."""
    checksums = all_gather({"": np.array([zlib.crc32(text.encode())], np.uint32)})[""]
    others = np.flatnonzero(checksums != checksums[0])
    if len(others):
        raise UserError(f"The {what} of process {', '.join(map(str, others))} are not those of process 0. {remedy}")
