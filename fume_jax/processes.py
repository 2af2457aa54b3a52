"""Several processes that work as one: how they find one another, agree when to stop, and end together."""

import contextlib
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from fume_jax.errors import NOTHING_DONE, Stalled, UserError

_PLATFORM = flags.DEFINE_enum(
    "platform", None, ["cpu", "gpu", "tpu"], "What to compute on; without it, the best that JAX finds."
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "HOST:PORT at which process 0 can be reached, for processes that neither Slurm, Open MPI nor a TPU pod starts.",
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are, with --coordinator.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0, with --coordinator.")
_BARRIER_SECONDS = flags.DEFINE_integer(
    "barrier_seconds", 600, "How long processes wait for one of them before they end.", lower_bound=10
)
_AGAIN = "the same command goes on from the last checkpoint"
_NONE = "none"
_EXTRAS = {"gpu": ("cuda12", "cuda13"), "tpu": ("tpu",)}


@contextlib.contextmanager
def joined(workdir: str | Path) -> Iterator[Callable[[bool], bool]]:
    """While open, this process is one of those that were started together; to be entered before any use of a device.

    Under Slurm, Open MPI and on TPU pods they find one another, elsewhere by flags; a process alone is a group of one.
    An error in one process ends all of them, with its message.

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
    with _arriving(workdir, address, count, index):
        # JAX's own service owns SIGTERM alone, and checkpoints that are written in the background upset its count.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            address,
            count,
            index,
            local_device_ids,
            cluster_detection_method="deactivate",
            initialization_timeout=_BARRIER_SECONDS.value + 60,
        )
    group = _Group(count, index, _BARRIER_SECONDS.value)
    try:
        _check_platform(jax, _PLATFORM.value)
        yield group.any
        group.wait("the end")
    except (UserError, OSError) as error:
        group.tell(error)
        raise Stalled(error) from error
    except BaseException as error:
        group.tell(f"{type(error).__name__}: {error}")
        if isinstance(error, jax.errors.JaxRuntimeError) and re.search("gloo|nccl", str(error), re.IGNORECASE):
            said = str(error).partition("\n")[0]
            raise Stalled(
                f"an exchange between processes failed, so one of them must have ended ({said}); {_AGAIN}"
            ) from error
        if isinstance(error, KeyboardInterrupt):
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(NOTHING_DONE)
    group.close()
    jax.distributed.shutdown()


def _found():
    """Address of process 0, number of processes, which one this is, and the devices it may use if not all."""
    from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize asks, which would not say "just one"

    said = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    # Open MPI from version 5 on tells everything but the address.
    mpi = [os.environ.get(f"OMPI_COMM_WORLD_{name}") for name in ("SIZE", "RANK")]
    count, index = (x if x is not None or y is None else int(y) for x, y in zip(said[1:], mpi, strict=True))
    address, count, index, local_device_ids = ClusterEnv.auto_detect_unset_distributed_params(
        said[0], count, index, None, None, _BARRIER_SECONDS.value
    )
    if count == 1 or (count is None and address is None):
        return None, 1, 0, None
    if None in (address, count, index):
        raise UserError(
            "Processes that work together are told where the first of them is, how many there are and which one each "
            f"is: --coordinator=HOST:PORT --num_processes=N --process_id=I. Given: {address}, {count}, {index}."
        )
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
    folder = Path(workdir) / ".processes"
    folder.mkdir(parents=True, exist_ok=True)
    own = folder / str(index)
    own.write_text(socket.gethostname())
    seconds = _BARRIER_SECONDS.value

    def give_up():
        # Clocks of hosts differ; that of the disk is one. A file that is older was left by an earlier start.
        since = own.stat().st_mtime - seconds
        here = {int(p.name) for p in folder.iterdir() if p.name.isdigit() and p.stat().st_mtime >= since}
        missing = sorted(set(range(count)) - here)
        what = (
            f"{_names(missing)} of {count} did not come within {seconds} s, or not with this --workdir, {workdir}, "
            "which all must see"
            if missing
            else f"All {count} processes have come, but process {index} reached nobody at {address} within {seconds} s"
        )
        own.unlink(missing_ok=True)
        print(f"error: {what}. Waiting was process {index} on {socket.gethostname()}.", file=sys.stderr, flush=True)
        os._exit(NOTHING_DONE)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        own.unlink(missing_ok=True)


class _Group:
    """The processes that have found one another, and the service of JAX at which they meet."""

    def __init__(self, count: int, index: int, seconds: int):
        from jax._src import distributed  # as Orbax does: what is public has no time limit and names nobody

        self._client = distributed.global_state.client
        self._count, self._index, self._seconds = count, index, seconds
        self._calls, self._last_call, self._own_fault = 0, time.monotonic(), _NONE
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def any(self, flag: bool) -> bool:
        self._calls, self._last_call = self._calls + 1, time.monotonic()
        if flag:
            self._set("stop", self._calls)
        self.wait(f"meeting {self._calls}")
        # One that runs ahead may have said so in the next call already.
        return int(self._get("stop") or sys.maxsize) <= self._calls

    def wait(self, what: str) -> None:
        """Waits for all processes."""
        import jax

        try:
            self._client.wait_at_barrier("everybody", self._seconds * 1000)
        except jax.errors.JaxRuntimeError as error:
            late = re.search(r"timed out task names:\s*((?:\d+\s+)+)", str(error))
            dead = re.search(r"Task (\d+) heartbeat timeout", str(error))
            if late:
                who = f"{_names([int(name) for name in late[1].split()])} of {self._count}"
                said = f"{who} did not come to {what} within {self._seconds} s and must hang; their logs may say where"
            elif dead:
                said = f"process {dead[1]} of {self._count} gives no sign of life; its log may say why"
            else:
                raise Stalled(self._lost()) from error
            raise Stalled(f"{said}; {_AGAIN}") from error

    def tell(self, why: Exception | str) -> None:
        """Has all other processes end; returns once they know why."""
        self._own_fault = f"process {self._index} of {self._count} ended: {why}"
        self._set("fault", self._own_fault)
        if self._get("fault") != self._own_fault:
            self._watcher.join()  # another was first: what went wrong here follows from that, and the watcher ends it
        self._part()

    def close(self) -> None:
        """Ends without a fault."""
        self._set("fault", _NONE)
        self._watcher.join()

    def _watch(self):
        """Ends this process when another has failed, or if a device hangs; the main thread may wait in it for ever."""
        while True:
            try:
                fault = self._get("fault", seconds=5)
            except RuntimeError:
                fault = self._lost()
            if fault is None and self._calls and time.monotonic() - self._last_call > self._seconds + 60:
                fault = f"process {self._index} of {self._count} hangs since meeting {self._calls}"
                self._set("fault", fault)
            if fault in (_NONE, self._own_fault):
                return
            if fault is not None:
                print(f"error: {fault}", file=sys.stderr, flush=True)
                self._part()
                os._exit(NOTHING_DONE)

    def _lost(self):
        return f"process 0 of {self._count}, where all meet, cannot be reached any more; its log may say why; {_AGAIN}"

    def _part(self):
        # Process 0 ends last: without it the others would crash before they can say why they end.
        with contextlib.suppress(RuntimeError):
            self._client.wait_at_barrier("parting", 5000)

    def _set(self, key, value):
        with contextlib.suppress(RuntimeError):  # somebody was first
            self._client.key_value_set(key, str(value))

    def _get(self, key, seconds=None):
        try:
            if seconds is None:
                return self._client.key_value_try_get(key)
            return self._client.blocking_key_value_get(key, seconds * 1000)
        except RuntimeError as error:
            if "NOT_FOUND" in str(error) or "DEADLINE_EXCEEDED" in str(error):
                return None
            raise


def _names(indices):
    return f"process{'es' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
