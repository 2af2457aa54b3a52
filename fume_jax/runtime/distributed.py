"""Several processes that work as one: how they find one another, agree when to stop, and end together."""

import contextlib
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from fume_jax.runtime.cli import PROGRAMS
from fume_jax.runtime.errors import NOTHING_DONE, RUN_AGAIN, Stalled, UserError
from fume_jax.runtime.watchdog import RESUMES, Watchdog, ask_launcher, names

_PLATFORM = flags.DEFINE_enum(
    "platform", None, ["cpu", "gpu", "tpu"], "What to compute on; without it, the best that JAX finds."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT at which process 0 can be reached, for processes that neither Slurm, Open MPI 4 nor a TPU pod starts.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are, with --coordinator; 1 asks no launcher.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0, with --coordinator.")
_BARRIER_SECONDS = flags.DEFINE_integer(
    "barrier_seconds", 300, "How long processes wait for one of them before they end.", lower_bound=10
)
_EXTRAS = {"gpu": ("cuda12", "cuda13"), "tpu": ("tpu",)}


@contextlib.contextmanager
def joined(workdir: str | Path) -> Iterator[Callable[[bool], bool]]:
    """While open, this process is one of those that were started together; to be entered before any use of a device.

    Under Slurm, Open MPI 4 and on TPU pods they find one another, elsewhere by flags; a process alone is a group of
    one. An error in one process ends all of them, with its message.

    Args:
      workdir: folder that all processes see.

    Yields:
      A function that each process calls equally often: whether any process said True in this call or an earlier one.

    Raises:
      UserError: if the platform or the processes asked for are not there.
      Stalled: by the function that is yielded, if not all processes call it in time; names those that did not.
    """
    import jax

    if _PLATFORM.value == "cpu":
        jax.config.update("jax_platforms", "cpu")
    address, count, index, local_device_ids = _found()
    if count == 1:
        _check_platform(jax, _PLATFORM.value)
        yield bool
        return
    if jax.config.jax_compilation_cache_dir == str(PROGRAMS):
        # Process 0 alone writes programs. Unless all see that folder, the others would compile when it does not, and on
        # GPUs wait for its share of the tuning.
        jax.config.update("jax_compilation_cache_dir", None)
    with _arriving(workdir, address, count, index):
        # JAX's own service owns SIGTERM alone, and checkpoints that are written in the background upset its count.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            address,
            count,
            index,
            local_device_ids,
            cluster_detection_method="deactivate",
            # Both end the process in a crash, so that the barriers here, which name who is late, come first.
            initialization_timeout=_BARRIER_SECONDS.value + 60,
            heartbeat_timeout_seconds=_BARRIER_SECONDS.value + 60,
        )
    watchdog = Watchdog(count, index, _BARRIER_SECONDS.value)
    try:
        watchdog.check_surroundings(workdir)
        _check_platform(jax, _PLATFORM.value)
        yield watchdog.any
        watchdog.barrier("the end")
    except (UserError, OSError) as error:
        code = getattr(error, "exit_code", NOTHING_DONE)
        watchdog.abort(error, code)
        raise Stalled(error, code) from error
    except KeyboardInterrupt:
        watchdog.abort(f"it was interrupted; {RESUMES}", RUN_AGAIN)
        raise
    except BaseException as error:
        said = str(error).partition("\n")[0]
        if isinstance(error, jax.errors.JaxRuntimeError) and re.search("gloo|nccl", said, re.IGNORECASE):
            lost = f"an exchange between processes failed, so one of them must have ended ({said}); {RESUMES}"
            watchdog.abort(lost, RUN_AGAIN)
            raise Stalled(lost, RUN_AGAIN) from error
        watchdog.abort(f"{type(error).__name__}: {said}", NOTHING_DONE)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(NOTHING_DONE)
    watchdog.close()
    jax.distributed.shutdown()


def _found():
    """Address of process 0, number of processes, which one this is, and the devices it may use if not all."""
    address, count, index = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    local_device_ids = None
    if count == 1:
        return None, 1, 0, None
    try:
        if told := ask_launcher(address, count, index, _BARRIER_SECONDS.value):
            address, count, index, local_device_ids = told
        elif "OMPI_COMM_WORLD_SIZE" in os.environ:  # Open MPI from version 5 on tells all but the address
            mpi = {name: int(os.environ[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK", "LOCAL_RANK")}
            count, index, local_device_ids = mpi["SIZE"], mpi["RANK"], [mpi["LOCAL_RANK"]]
    except RuntimeError as error:
        raise UserError(f"The processes that work with this one were not found: {error}") from error
    if count == 1 or (address, count, index) == (None, None, None):
        return None, 1, 0, None
    if None in (address, count, index):
        raise UserError(
            "Processes that work together are told where the first of them is, how many there are and which one each "
            f"is: --coordinator=HOST:PORT --num_processes=N --process_id=I. Given: {address}, {count}, {index}."
        )
    if not re.fullmatch(r".+:\d+", address):
        raise UserError(f"--coordinator is {address}; expected HOST:PORT.")
    if not 0 <= index < count:
        raise UserError(f"--process_id is {index}; expected 0 to {count - 1}, as --num_processes is {count}.")
    return address, count, index, local_device_ids


def _check_platform(jax, wanted):
    try:
        found = jax.default_backend()
    except RuntimeError as error:
        raise UserError(f"{error}\nInstall the jax of this machine, such as pip install -e '.[cuda12]'.") from error
    if wanted is not None and found != wanted:
        install = " or ".join(f"pip install -e '.[{extra}]'" for extra in _EXTRAS[wanted])
        raise UserError(
            f"--platform={wanted}, but JAX found only {jax.devices()}. Install the jax for it ({install}) and see that "
            "its driver works."
        )


@contextlib.contextmanager
def _arriving(workdir, address, count, index):
    """While open, notes on disk that this process has come, and gives up after a while, naming those that have not.

    Connecting itself would end in a crash of the process that says neither.
    """
    folder, seconds = Path(workdir) / ".processes", _BARRIER_SECONDS.value
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / str(index)
    own.write_text(address)
    came = own.stat().st_mtime

    def here(path):
        # Clocks of hosts differ; that of the disk is one. An older file was left by an earlier start.
        with contextlib.suppress(FileNotFoundError):
            return path.read_text() == address and path.stat().st_mtime >= came - seconds
        return False

    def give_up():
        missing = [i for i in range(count) if not here(folder / str(i))]
        what = (
            f"{names(missing)} of {count} did not come within {seconds} s, or not with this --workdir, {workdir}, "
            "which all must see, and this --coordinator"
            if missing
            else f"all {count} processes have come, but this one reached nobody within {seconds} s"
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
