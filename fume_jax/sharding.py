"""Where arrays live: one mesh axis, `data`. A model of 1.7M parameters needs no other."""

import os
from collections.abc import Iterable, Iterator

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fume_jax.errors import UserError
from fume_jax.vocabulary import batch_spec


def request_determinism() -> None:
    """Has a GPU add in one order and choose kernels without trying them, so that a run gives the same numbers again.

    To be called before anything else asks for a device. On CPU it changes nothing, nor needs to.
    """
    flags = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"


def create_mesh() -> Mesh:
    """All devices of all processes in a row."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of the state: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: the examples dealt out to the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(name: str, batch_size: int, mesh: Mesh, parts: int = 1) -> None:
    """Raises UserError unless the devices can share each part of a batch evenly; `name` is the key that sets it."""
    shares = mesh.size * parts
    if batch_size % shares:
        raise UserError(
            f"{name} is {batch_size}, which {mesh.size} devices cannot share evenly"
            f"{f' in {parts} parts' if parts > 1 else ''}; choose a multiple of {shares}, such as "
            f"{max(1, batch_size // shares) * shares}."
        )


def abstract_batch(batch_size: int, height: int, width: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings of a batch."""
    spec, sharding = batch_spec(batch_size, height, width), batch_sharding(mesh)
    return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for name, x in spec.items()}


def to_devices(batches: Iterable[dict], mesh: Mesh) -> Iterator[dict]:
    """Puts each process's share of the batches on its devices, one batch ahead of the step that takes it."""
    sharding = batch_sharding(mesh)
    ahead = None
    for batch in batches:
        batch = jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)
        if ahead is not None:
            yield ahead
        ahead = batch
    if ahead is not None:
        yield ahead
