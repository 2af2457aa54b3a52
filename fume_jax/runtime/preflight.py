"""What would end a run late and badly, said early and plainly: two runs in one folder, too little disk or memory."""

import contextlib
import errno
import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
import jax
import psutil

from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError

# What the memory of a device depends on, and that of a host, which also holds what is read ahead.
DEVICE_KEYS = ("config.train.batch_size", "config.data.height", "config.data.width")
HOST_KEYS = (*DEVICE_KEYS, "config.data.prefetch", "config.data.num_workers")
# In errors of JAX.
_NO_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")
# Libraries report a full disk or a spent quota as errors of many types, but in the system's words.
_FULL = ("No space left on device", "Disk quota exceeded")
# Of each version of Linux's control groups: mount point, limit, usage, and the part of it that is given back on demand.
_CGROUPS = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@contextlib.contextmanager
def run_lock(workdir: str | Path, name: str = ".lock", doing: str = "training in") -> Iterator[None]:
    """Keeps all others from doing the same in a folder, which is made if it is not there.

    The first process of a run holds the lock for all. The system frees it when the process ends, however it ends; its
    file stays.

    Raises:
      UserError: if another process holds it.
      OSError: if the folder cannot be written.
    """
    Path(workdir).mkdir(parents=True, exist_ok=True)
    if jax.process_index() != 0:
        yield
        return
    lock = filelock.FileLock(Path(workdir) / name)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout as error:
        raise UserError(
            f"Another process is {doing} {workdir}; wait for it, stop it, or use another --workdir."
        ) from error
    try:
        yield
    finally:
        lock.release()


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


@contextlib.contextmanager
def full_disk(folder: str | Path, what: str) -> Iterator[None]:
    """Turns any library's error about a disk that filled up under `folder` while `what` was written into a UserError.

    All other errors pass.
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or any(text in str(error) for text in _FULL):
            raise UserError(
                f"The disk is full: {what} could not be written to {folder}. Free some space and run the same command "
                "again, or choose a folder on another disk."
            ) from error
        raise


def warn_of_host_memory(needed_bytes: float, console: Console) -> None:
    """Warns if this machine seems to have less memory left than an estimate of what training needs.

    What is left is what the system says, or what the control groups of a container or a Slurm job say if that is less.
    An estimate refuses nothing: running out of memory has a message of its own, see `out_of_memory`.
    """
    available = min(psutil.virtual_memory().available, _cgroup_room())
    if available < needed_bytes:
        console.warn(
            f"Training may need about {_size(needed_bytes)} of memory, and {_size(available)} are available. If it "
            f"ends for want of memory: {_lower(HOST_KEYS)}"
        )


def device_memory() -> int:
    """Bytes that JAX may take of the smallest device of this process; 0 where that is not told, as of a CPU."""
    return min((device.memory_stats() or {}).get("bytes_limit", 0) for device in jax.local_devices())


def check_device_memory(needed_bytes: float) -> None:
    """Raises UserError unless every device of this process, where it tells, has room for that much of a dataset."""
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

    Where JAX runs ahead of Python, the error comes when a result is waited for, which belongs inside too.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and not any(text in str(error) for text in _NO_MEMORY):
            raise
        said = str(error).partition("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ").rstrip(".")
        raise UserError(
            f"Memory ran out with {_batches(batch_size, height, width)} ({said}). {_lower(keys)}"
        ) from error


def step_memory(compiled: jax.stages.Compiled) -> int:
    """Bytes that a compiled function holds on one device while it runs; 0 where the platform does not tell.

    Arguments, results and what lies between, donated arguments counted once.
    """
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        + memory.temp_size_in_bytes
        - memory.alias_size_in_bytes
    )


def _cgroup_room(system=Path("/")):
    """Bytes that the control groups of this process, one in the other, leave it; infinite where there are none."""
    own = system / "proc/self/cgroup"
    room = math.inf
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controller, path = line.split(":", 2)
        if controller in _CGROUPS:
            mount, limit, usage, cache = _CGROUPS[controller]
            root = system / "sys/fs/cgroup" / mount
            group = root / path.lstrip("/")
            # A limit of any group above holds too; in a container the own path may be one of the host, unseen here.
            for folder in (group, *(g for g in group.parents if g.is_relative_to(root))):
                if (folder / limit).exists():
                    most = float((folder / limit).read_text().replace("max", "inf"))
                    stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                    room = min(room, most - int((folder / usage).read_text()) + int(stat[cache]))
    return room


def _batches(batch_size, height, width):
    return f"batches of {batch_size} pairs of {width}x{height}"


def _lower(keys):
    *some, last = (f"--{key}" for key in keys)
    text = f"Lower {', '.join(some)} or {last}" if some else f"Lower {last}"
    in_parts = ", or take the batch in parts, --config.train.gradient_accumulation_steps=2"
    parts = in_parts if DEVICE_KEYS[0] in keys else ""
    return f"{text}{parts}; in another --workdir."


def folder_size(folder: str | Path) -> int:
    """Bytes of all files of a folder; 0 if there is none."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def _size(count):
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
