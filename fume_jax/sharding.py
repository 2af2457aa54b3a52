"""Where arrays live: one mesh axis, `data`. A model of 1.7M parameters needs no other."""

from collections.abc import Iterable, Iterator

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fume_jax.errors import UserError


def create_mesh() -> Mesh:
    """All devices of all processes in a row."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Sharding of the state: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of a batch: the examples dealt out to the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def check_batch_size(name: str, batch_size: int, mesh: Mesh) -> None:
    """Raises UserError unless the devices of the mesh can share the batch evenly; `name` is the key that sets it."""
    if batch_size % mesh.size:
        raise UserError(
            f"{name} is {batch_size}, which {mesh.size} devices cannot share evenly; "
            f"choose a multiple of {mesh.size}, such as {max(1, batch_size // mesh.size) * mesh.size}."
        )


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
