"""Barriers that name late processes; the one file that uses JAX's private modules.

JAX's public interface says neither which process is late nor when to give up. A new release of jax may break this file.
"""

import collections
import contextlib
import json
import os
import re
import sys
import threading
import time
from pathlib import Path

from fume_jax.runtime.errors import RUN_AGAIN, Stalled, UserError

# Launchers by jax.distributed's names. Kubernetes is none: it starts single processes in the same environment.
_LAUNCHERS = ("slurm", "ompi", "gcetpu", "gketpu")
NO_FAULT = "none"
# Seconds: beyond those that processes wait for one another, until a silent device is suspected; between looks; until
# all must have answered; for parting.
_GRACE, _LOOK, _ANSWER, _PARTING = 10, 5, 30, 5
RESUMES = "the same command goes on from the last checkpoint"


def backends_initialized() -> bool:
    """Returns True if any device was used already, after which XLA reads no more flags."""
    from jax._src import xla_bridge

    return xla_bridge.backends_are_initialized()


def heartbeat_timeout(seconds: int) -> int:
    """Returns the seconds after which JAX may give up a process that is silent, if `Watchdog` waits `seconds` for it.

    JAX ends the others in a crash that names nobody, and hears of each process twice in this time only: it may notice
    after half of it, and must not before the watchdog has told.
    """
    return 2 * (seconds + _GRACE + _LOOK + _ANSWER + 2 * _PARTING)


def ask_launcher(
    address: str | None, count: int | None, index: int | None, timeout_seconds: int
) -> tuple[str | None, int | None, int | None, list[int] | None] | None:
    """Asks the launcher of this process for those of the values that are None; returns None if there is no launcher.

    They are the address of process 0, the number of processes, which one this is, and its devices if not all. Raises
    RuntimeError if the launcher's environment is inconsistent.
    """
    from jax._src.clusters import ClusterEnv  # jax.distributed.initialize asks it too, but does not report "just one"

    known = [env for env in ClusterEnv._cluster_types if env.name in _LAUNCHERS]
    launcher = next((env.name for env in known if env.is_env_present()), None)
    if launcher is None:
        return None
    return ClusterEnv.auto_detect_unset_distributed_params(address, count, index, None, launcher, timeout_seconds)


class Watchdog:
    """Barriers of all processes at JAX's coordination service, and a thread that ends this one if another failed."""

    def __init__(self, count: int, index: int, seconds: int):
        from jax._src import distributed  # as Orbax does: the public interface has no time limit and names nobody

        self._client = distributed.global_state.client
        self._count, self._index, self._seconds = count, index, seconds
        self._calls, self._last_call, self._closing = 0, time.monotonic(), False
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def check_surroundings(self, workdir: str | Path) -> None:
        """Raises UserError unless this process has the folder and the number of processes of process 0."""
        path = Path(workdir) / ".processes" / "start"
        if self._index == 0:
            path.write_text(str(time.time_ns()))
            self._set("start", json.dumps([path.read_text(), self._count]))
            return
        reply = self._get("start", seconds=self._seconds)
        if reply is None:
            raise Stalled(f"process 0 of {self._count} sent nothing within {self._seconds} s; {RESUMES}", RUN_AGAIN)
        start, count = json.loads(reply)
        if count != self._count:
            raise UserError(f"--num_processes is {self._count} here, and {count} in process 0.")
        deadline = time.monotonic() + min(60, self._seconds)  # for a network disk
        while not (path.exists() and path.read_text() == start):
            if time.monotonic() > deadline:
                raise UserError(f"--workdir, {workdir}, is not the folder that process 0 sees; all must see one.")
            time.sleep(0.5)

    def any(self, flag: bool) -> bool:
        """Waits for all processes; returns True if any of them passed True in this call or an earlier one."""
        self._calls += 1
        if flag:
            self._set("stop", self._calls)
        self.barrier(f"barrier {self._calls}")
        # A process that runs ahead may have set the flag in its next call already.
        return int(self._get("stop") or sys.maxsize) <= self._calls

    def barrier(self, name: str) -> None:
        """Waits for all processes; raises Stalled, naming those that are late."""
        self._last_call = time.monotonic()
        if late := self._late("everybody", self._seconds):
            raise Stalled(f"{late} did not come to {name} within {self._seconds} s; {RESUMES}", RUN_AGAIN)

    def abort(self, reason: Exception | str, exit_code: int) -> None:
        """Ends all other processes; returns once they know the reason."""
        own = json.dumps([f"process {self._index} of {self._count} ended: {reason}", exit_code])
        self._closing = True
        self._set("fault", own)
        if self._get("fault") != own:  # another process failed first, and this failure follows from that one
            self._closing = False
            self._watcher.join()
        self._leave()

    def close(self) -> None:
        """Ends without a fault."""
        self._closing = True
        self._set("fault", NO_FAULT)
        self._watcher.join()

    def _watch(self):
        """Ends this process if another failed or a device hangs, where the main thread may wait for ever."""
        rounds = collections.Counter()
        while True:
            fault = self._get("fault", seconds=_LOOK)
            if self._closing or fault == NO_FAULT:
                return
            # `barrier` gives up sooner than this, so the main thread is not in it but waits for a device.
            waited, number = time.monotonic() - self._last_call, self._calls
            if fault is None and number and waited > self._seconds + _GRACE:
                rounds[number] += 1
                late = self._late(f"round {rounds[number]} after barrier {number}", _ANSWER)
                # Processes that are all alive may be compiling, and get more time.
                if self._calls == number and (late or waited > 5 * self._seconds):
                    what = f"{late} gives no sign of life" if late else "no process gets anything from its devices"
                    self._set("fault", json.dumps([f"{what} since barrier {number}; {RESUMES}", RUN_AGAIN]))
            elif fault is not None:
                message, exit_code = json.loads(fault)
                print(f"error: {message}", file=sys.stderr, flush=True)
                self._leave()
                os._exit(exit_code)

    def _late(self, barrier, seconds):
        """Waits until all processes are at a barrier; returns in words those that did not come in time, or None."""
        try:
            self._client.wait_at_barrier(barrier, seconds * 1000)
        except RuntimeError as error:
            late = re.search(r"timed out task names:\s*((?:\d+\s+)+)", str(error))
            if late is None:
                raise Stalled(f"process 0 cannot be reached ({error}); {RESUMES}", RUN_AGAIN) from error
            return f"{names([int(name) for name in late[1].split()])} of {self._count}"

    def _leave(self):
        # Process 0 ends last: without it the others would crash before they can report why they end.
        with contextlib.suppress(RuntimeError):
            self._client.wait_at_barrier("parting", 1000 * _PARTING)
        if self._index == 0:
            time.sleep(1)

    def _set(self, key, value):
        with contextlib.suppress(RuntimeError):  # another process was first
            self._client.key_value_set(key, str(value))

    def _get(self, key, seconds=0):
        """Returns the value of a key, waiting some seconds for it; None if it is not set by then."""
        try:
            if not seconds:
                return self._client.key_value_try_get(key)
            return self._client.blocking_key_value_get(key, seconds * 1000)
        except RuntimeError as error:
            if "NOT_FOUND" not in str(error) and "DEADLINE_EXCEEDED" not in str(error):
                time.sleep(seconds)  # JAX ends this process when process 0 is gone
            return None


def names(indices: list[int]) -> str:
    """Names processes in words."""
    return f"process{'es' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"
