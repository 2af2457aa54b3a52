"""Checks before a run for two runs in one folder and for too little disk or memory, and plain errors about these."""

import contextlib
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import psutil

from fume_jax.runtime import errors, files
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.schema import batch_spec

# Keys that the memory of a device depends on, and that of a host, which also holds prefetched batches.
DEVICE_KEYS = ("config.train.batch_size", "config.data.height", "config.data.width")
HOST_KEYS = (*DEVICE_KEYS, "config.data.prefetch", "config.data.num_workers")
# For each version of Linux's control groups: mount point, limit, usage, and the reclaimable part of the usage.
_CGROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@contextlib.contextmanager
def run_lock(
    workdir: str | Path, name: str = ".lock", doing: str = "training in", flag: str = "--workdir"
) -> Iterator[None]:
    """Holds a lock on a folder, which is created if needed, against other processes that do the same in it.

    The first process of a run holds the lock for all. The system frees it however the process ends; its file stays.
    Raises UserError if another process holds it or the folder cannot be written.
    """
    if jax.process_index() != 0:
        Path(workdir).mkdir(parents=True, exist_ok=True)
        yield
        return
    with files.lock(workdir, name=name, doing=doing, flag=flag):
        yield


def check_free_space(folder: str | Path, needed_bytes: float, what: str) -> None:
    """Raises UserError unless the file system that holds `folder`, or will, has room for `what`, a noun phrase."""
    folder = Path(folder).absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise UserError(
            f"{what} needs about {_size(needed_bytes)} of disk, and {existing} has {_size(free)} free. Free some, or "
            "choose a folder on another disk."
        )


def warn_of_host_memory(needed_bytes: float, console: Console) -> None:
    """Warns if this machine has less memory available than an estimate of what training needs.

    The system reports what is available, or the control groups of a container or a Slurm job if they leave less. An
    estimate refuses nothing: running out of memory has a message of its own, see `out_of_memory`.
    """
    available = min(psutil.virtual_memory().available, _cgroup_room())
    if available < needed_bytes:
        console.warn(
            f"Training may need about {_size(needed_bytes)} of memory, and {_size(available)} are available. If it "
            f"runs out of memory: {_lower(HOST_KEYS)}"
        )


def check_batch_memory(
    *, batch_size: int, height: int, width: int, keys: Sequence[str] = DEVICE_KEYS, total_bytes: float | None = None
) -> None:
    """Raises UserError if this process's share of one batch alone is larger than all memory of the machine."""
    total_bytes = total_bytes or psutil.virtual_memory().total
    spec = batch_spec(1, height, width).values()
    needed_bytes = batch_size // jax.process_count() * sum(math.prod(x.shape) * x.dtype.itemsize for x in spec)
    if needed_bytes > total_bytes:
        raise UserError(
            f"A batch of {batch_size:,} pairs of {width}x{height} takes {_size(needed_bytes)}, and this machine has "
            f"{_size(total_bytes)} of memory. {_lower(keys)}"
        )


def device_memory() -> int:
    """Returns the bytes that JAX may take of the smallest device of this process; 0 if unknown, as for a CPU."""
    return min((device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices())


def check_device_memory(needed_bytes: float) -> None:
    """Raises UserError unless every device of this process whose memory is known has room for a decoded dataset."""
    for device in jax.local_devices():
        stats = device.memory_stats() or {}
        free = stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)
        if free < needed_bytes:
            raise UserError(
                f"The decoded dataset needs {_size(needed_bytes)} of device memory, and {device} has {_size(free)} "
                "free. Decode while training, --config.data.cache=none, or lower --config.data.height and "
                "--config.data.width; in another --workdir."
            )


@contextlib.contextmanager
def out_of_memory(*, batch_size: int, height: int, width: int, keys: Sequence[str] = DEVICE_KEYS) -> Iterator[None]:
    """Turns an error about memory, of JAX on its devices or of Python, into a UserError; all other errors pass.

    JAX runs ahead of Python, so the error may come only when a result is waited for, which belongs inside too.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if (reason := errors.out_of_memory(error)) is None:
            raise
        batches = f"batches of {batch_size} pairs of {width}x{height}"
        raise UserError(f"Memory ran out with {batches} ({reason}). {_lower(keys)}") from error


def step_memory(compiled: jax.stages.Compiled) -> int:
    """Returns the bytes on one device of arguments (donated ones once), results and temporaries; 0 if unknown."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    arguments_and_results = memory.argument_size_in_bytes + memory.output_size_in_bytes
    return arguments_and_results + memory.temp_size_in_bytes - memory.alias_size_in_bytes


def _cgroup_room(system=Path("/")):
    """Returns the bytes that the nested control groups of this process leave it; infinite if there are none."""
    own = system / "proc/self/cgroup"
    room = math.inf
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controller, path = line.split(":", 2)
        if controller in _CGROUPS:
            mount, limit, usage, cache = _CGROUPS[controller]
            root = system / "sys/fs/cgroup" / mount
            group = root / path.lstrip("/")
            # The limits of all groups above hold too. A container may show its path on the host, which is not there.
            for folder in (group, *(g for g in group.parents if g.is_relative_to(root))):
                if (folder / limit).exists():
                    most = float((folder / limit).read_text().replace("max", "inf"))
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    room = min(room, most - int((folder / usage).read_text()) + int(stat[cache]))
    return room


def _lower(keys):
    *some, last = (f"--{key}" for key in keys)
    text = f"Lower {', '.join(some)} or {last}" if some else f"Lower {last}"
    if DEVICE_KEYS[0] in keys:
        text += ", or take the batch in parts, --config.train.gradient_accumulation_steps=2"
    return f"{text}; in another --workdir."


def folder_size(folder: str | Path) -> int:
    """Returns the bytes of all files under a folder; 0 if it does not exist."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def _size(count):
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
