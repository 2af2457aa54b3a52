"""Several processes that work as one: they find one another, agree when to stop, and end together."""

import contextlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from fume_jax.runtime.cli import COMPILATION_CACHE
from fume_jax.runtime.errors import NOTHING_DONE, RUN_AGAIN, Stalled, UserError, explain, missing_platform
from fume_jax.runtime.watchdog import RESUMES, Watchdog, ask_launcher, heartbeat_timeout, names

_PLATFORM = flags.DEFINE_enum(
    "platform", None, ["cpu", "gpu", "tpu"], "Kind of device to compute on; without it, the best kind that JAX finds."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Address HOST:PORT of process 0, unless Slurm, Open MPI 4 or a TPU pod starts the processes."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "Number of processes that work together, with --coordinator; 1 to work alone.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, counted from 0, with --coordinator.")
_BARRIER_SECONDS = flags.DEFINE_integer(
    "barrier_seconds", 300, "Seconds that processes wait for one that is late before all end.", lower_bound=10
)
_EXTRAS = {"gpu": ("cuda12", "cuda13"), "tpu": ("tpu",)}


@contextlib.contextmanager
def joined(workdir: str | Path) -> Iterator[Callable[[bool], bool]]:
    """While open, makes this process one of those that were started together; enter it before any use of a device.

    Slurm, Open MPI 4, a TPU pod or flags tell them of each other; a process alone is a group of one. All see `workdir`.
    An error in one ends all, with its message. Raises UserError if the platform or the processes are not there.

    Yields:
      A function that each process calls equally often: True if any process passed True in this call or an earlier one.
      It raises Stalled, naming the processes that did not call it in time.
    """
    import jax

    if _PLATFORM.value == "cpu":
        jax.config.update("jax_platforms", "cpu")
    address, count, index, _ = found = _find_processes()
    if count == 1:
        _check_platform(jax)
        yield bool
        return
    if jax.config.jax_compilation_cache_dir == str(COMPILATION_CACHE):
        # Process 0 alone writes to the cache. Unless all see its folder, the others would compile when it does not, and
        # on GPUs wait for its share of the tuning.
        jax.config.update("jax_compilation_cache_dir", None)
    with _rendezvous(workdir, address, count, index):
        # JAX's own service handles SIGTERM alone, and checkpoints that are written in the background upset its count.
        jax.config.update("jax_enable_preemption_service", False)
        # Both timeouts end the process in a crash, so that the barriers here, which name who is late, come first.
        seconds = _BARRIER_SECONDS.value
        timeouts = {"initialization_timeout": seconds + 60, "heartbeat_timeout_seconds": heartbeat_timeout(seconds)}
        jax.distributed.initialize(*found, cluster_detection_method="deactivate", **timeouts)
    watchdog = Watchdog(count, index, _BARRIER_SECONDS.value)
    try:
        watchdog.check_surroundings(workdir)
        _check_platform(jax)
        yield watchdog.any
        watchdog.barrier("the end")
    except KeyboardInterrupt:
        watchdog.abort(f"it was interrupted; {RESUMES}", RUN_AGAIN)
        raise
    except BaseException as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, jax.errors.JaxRuntimeError) and re.search("gloo|nccl", reason, re.IGNORECASE):
            lost = f"an exchange between processes failed, so one of them must have ended ({reason}); {RESUMES}"
            watchdog.abort(lost, RUN_AGAIN)
            raise Stalled(lost, RUN_AGAIN) from error
        if explanation := explain(error):
            code = getattr(error, "exit_code", NOTHING_DONE)
            watchdog.abort(explanation, code)
            raise Stalled(explanation, code) from error
        watchdog.abort(f"{type(error).__name__}: {reason}", NOTHING_DONE)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(NOTHING_DONE)
    watchdog.close()
    jax.distributed.shutdown()


def _find_processes():
    """Returns the address of process 0, the number of processes, which one this is, and its devices if not all."""
    found = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, None
    if found[1] == 1:
        return None, 1, 0, None
    try:
        if launched := ask_launcher(*found[:3], _BARRIER_SECONDS.value):
            found = launched
        elif "OMPI_COMM_WORLD_SIZE" in os.environ:  # Open MPI from version 5 on gives all but the address
            mpi = {name: int(os.environ[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK", "LOCAL_RANK")}
            found = found[0], mpi["SIZE"], mpi["RANK"], [mpi["LOCAL_RANK"]]
    except RuntimeError as error:
        raise UserError(f"The processes that work with this one were not found: {error}") from error
    address, count, index, _ = found
    if count == 1 or (address, count, index) == (None, None, None):
        return None, 1, 0, None
    if None in (address, count, index):
        raise UserError(
            "Processes that work together need the address of the first of them, their number and the number of each: "
            f"--coordinator=HOST:PORT --num_processes=N --process_id=I. Given: {address}, {count}, {index}."
        )
    if not re.fullmatch(r".+:\d+", address):
        raise UserError(f"--coordinator is {address}; expected HOST:PORT.")
    if not 0 <= index < count:
        raise UserError(f"--process_id is {index}; expected 0 to {count - 1}, as --num_processes is {count}.")
    return found


def _check_platform(jax):
    wanted = _PLATFORM.value
    if missing := missing_platform():
        raise UserError(missing)
    if wanted is not None and jax.default_backend() != wanted:
        install = " or ".join(f"pip install -e '.[{extra}]'" for extra in _EXTRAS[wanted])
        raise UserError(
            f"--platform={wanted}, but JAX found only {jax.devices()}. Install the jax for it ({install}) and see that "
            "its driver works."
        )


@contextlib.contextmanager
def _rendezvous(workdir, address, count, index):
    """Shows the others by a file that this process has come; after a while ends it, naming those that have not come.

    Connecting alone would end in a crash without such a message.
    """
    folder, seconds = Path(workdir) / ".processes", _BARRIER_SECONDS.value
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / str(index)
    own.write_text(address)
    came = own.stat().st_mtime

    def has_come(path):
        # Clocks of hosts differ, so that of the disk decides. An older file was left by an earlier start.
        with contextlib.suppress(FileNotFoundError):
            return path.read_text() == address and path.stat().st_mtime >= came - seconds
        return False

    def give_up():
        missing = [i for i in range(count) if not has_come(folder / str(i))]
        what = f"all {count} processes have come, but this one reached nobody within {seconds} s"
        if missing:
            what = (
                f"{names(missing)} of {count} did not come within {seconds} s, or not with this --workdir, {workdir}, "
                "which all must see, and this --coordinator"
            )
        print(f"error: process {index} waited at {address}; {what}.", file=sys.stderr, flush=True)
        os._exit(NOTHING_DONE)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        own.unlink(missing_ok=True)
