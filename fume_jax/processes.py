"""Several processes that work as one: how they find one another, agree when to stop, and end together."""

import collections
import contextlib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from fume_jax.cli import PROGRAMS
from fume_jax.errors import NOTHING_DONE, RUN_AGAIN, Stalled, UserError

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
# As jax.distributed calls those who start processes: not Kubernetes, which starts single ones in the same surroundings.
_LAUNCHERS = ("slurm", "ompi", "gcetpu", "gketpu")
_EXTRAS = {"gpu": ("cuda12", "cuda13"), "tpu": ("tpu",)}
_NONE = "none"
_AGAIN = "the same command goes on from the last checkpoint"


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
    group = _Group(count, index, _BARRIER_SECONDS.value)
    try:
        group.check_surroundings(workdir)
        _check_platform(jax, _PLATFORM.value)
        yield group.any
        group.wait("the end")
    except (UserError, OSError) as error:
        code = getattr(error, "exit_code", NOTHING_DONE)
        group.tell(error, code)
        raise Stalled(error, code) from error
    except KeyboardInterrupt:
        group.tell(f"it was interrupted; {_AGAIN}", RUN_AGAIN)
        raise
    except BaseException as error:
        said = str(error).partition("\n")[0]
        if isinstance(error, jax.errors.JaxRuntimeError) and re.search("gloo|nccl", said, re.IGNORECASE):
            lost = f"an exchange between processes failed, so one of them must have ended ({said}); {_AGAIN}"
            group.tell(lost, RUN_AGAIN)
            raise Stalled(lost, RUN_AGAIN) from error
        group.tell(f"{type(error).__name__}: {said}", NOTHING_DONE)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(NOTHING_DONE)
    group.close()
    jax.distributed.shutdown()


def _found():
    """Address of process 0, number of processes, which one this is, and the devices it may use if not all."""
    from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize asks, which would not say "just one"

    address, count, index = _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    local_device_ids = None
    if count == 1:
        return None, 1, 0, None
    known = [env for env in ClusterEnv._cluster_types if env.name in _LAUNCHERS]
    try:
        if launcher := next((env.name for env in known if env.is_env_present()), None):
            address, count, index, local_device_ids = ClusterEnv.auto_detect_unset_distributed_params(
                address, count, index, None, launcher, _BARRIER_SECONDS.value
            )
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
            f"{_names(missing)} of {count} did not come within {seconds} s, or not with this --workdir, {workdir}, "
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


class _Group:
    """The processes that have found one another, and the service of JAX at which they meet."""

    def __init__(self, count: int, index: int, seconds: int):
        from jax._src import distributed  # as Orbax does: what is public has no time limit and names nobody

        self._client = distributed.global_state.client
        self._count, self._index, self._seconds = count, index, seconds
        self._calls, self._last_call, self._closing = 0, time.monotonic(), False
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def check_surroundings(self, workdir: str | Path) -> None:
        """Raises UserError unless this process sees the folder that process 0 sees, and as many processes."""
        path = Path(workdir) / ".processes" / "start"
        if self._index == 0:
            path.write_text(str(time.time_ns()))
            self._set("start", json.dumps([path.read_text(), self._count]))
            return
        said = self._get("start", seconds=self._seconds)
        if said is None:
            raise Stalled(f"process 0 of {self._count} said nothing within {self._seconds} s; {_AGAIN}", RUN_AGAIN)
        start, count = json.loads(said)
        if count != self._count:
            raise UserError(f"--num_processes is {self._count} here, and {count} in process 0.")
        patience = time.monotonic() + min(60, self._seconds)  # for a network disk
        while not (path.exists() and path.read_text() == start):
            if time.monotonic() > patience:
                raise UserError(f"--workdir, {workdir}, is not the folder that process 0 sees; all must see one.")
            time.sleep(0.5)

    def any(self, flag: bool) -> bool:
        self._calls += 1
        if flag:
            self._set("stop", self._calls)
        self.wait(f"meeting {self._calls}")
        # One that runs ahead may have said so in the next call already.
        return int(self._get("stop") or sys.maxsize) <= self._calls

    def wait(self, what: str) -> None:
        """Waits for all processes."""
        self._last_call = time.monotonic()
        if late := self._late("everybody", self._seconds):
            raise Stalled(f"{late} did not come to {what} within {self._seconds} s; {_AGAIN}", RUN_AGAIN)

    def tell(self, why: Exception | str, exit_code: int) -> None:
        """Has all other processes end; returns once they know why."""
        own = json.dumps([f"process {self._index} of {self._count} ended: {why}", exit_code])
        self._closing = True
        self._set("fault", own)
        if self._get("fault") != own:  # Another was first: what went wrong here follows from that.
            self._closing = False
            self._watcher.join()
        self._part()

    def close(self) -> None:
        """Ends without a fault."""
        self._closing = True
        self._set("fault", _NONE)
        self._watcher.join()

    def _watch(self):
        """Ends this process when another has failed, or if a device hangs; the main thread may wait in it for ever."""
        rounds = collections.Counter()
        while True:
            fault = self._get("fault", seconds=5)
            if self._closing or fault == _NONE:
                return
            # Later than `wait` gives up: the main thread is not there, but waits for a device.
            waited, meeting = time.monotonic() - self._last_call, self._calls
            if fault is None and meeting and waited > self._seconds + 10:
                rounds[meeting] += 1
                late = self._late(f"round {rounds[meeting]} after meeting {meeting}", 30)
                # Where all are alive, they may compile.
                if self._calls == meeting and (late or waited > 5 * self._seconds):
                    what = f"{late} gives no sign of life" if late else "no process gets anything from its devices"
                    self._set("fault", json.dumps([f"{what} since meeting {meeting}; {_AGAIN}", RUN_AGAIN]))
            elif fault is not None:
                message, exit_code = json.loads(fault)
                print(f"error: {message}", file=sys.stderr, flush=True)
                self._part()
                os._exit(exit_code)

    def _late(self, barrier, seconds):
        """Waits until all processes are at a barrier; in words, those that did not come in time, or None."""
        try:
            self._client.wait_at_barrier(barrier, seconds * 1000)
        except RuntimeError as error:
            late = re.search(r"timed out task names:\s*((?:\d+\s+)+)", str(error))
            if late is None:
                raise Stalled(f"process 0 cannot be reached ({error}); {_AGAIN}", RUN_AGAIN) from error
            return f"{_names([int(name) for name in late[1].split()])} of {self._count}"

    def _part(self):
        # Process 0 ends last: without it the others would crash before they can say why they end.
        with contextlib.suppress(RuntimeError):
            self._client.wait_at_barrier("parting", 5000)
        if self._index == 0:
            time.sleep(1)

    def _set(self, key, value):
        with contextlib.suppress(RuntimeError):  # somebody was first
            self._client.key_value_set(key, str(value))

    def _get(self, key, seconds=0):
        """What was set; None if nothing was within some seconds."""
        try:
            if not seconds:
                return self._client.key_value_try_get(key)
            return self._client.blocking_key_value_get(key, seconds * 1000)
        except RuntimeError as error:
            if "NOT_FOUND" not in str(error) and "DEADLINE_EXCEEDED" not in str(error):
                time.sleep(seconds)  # without process 0 JAX ends this one
            return None


def _names(indices):
    return f"process{'es' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
