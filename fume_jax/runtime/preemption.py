"""Preemption: stopping a run from outside, at a step of its own choosing."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator


class Stopped(Exception):
    """Raised to leave work that can be done again later, because a stop was requested."""


class StopRequest:
    """While open, SIGINT (Ctrl-C), SIGTERM and SIGUSR2 set `requested` instead of interrupting the running code.

    Clusters announce with SIGTERM and SIGUSR2 (Windows lacks it) that a job ends or moves. An interruption in the
    middle of compiled code or of a library's thread can be lost or crash the process. A second Ctrl-C acts as usual.
    """

    SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, name))

    def __init__(self, agree: Callable[[bool], bool] = bool):
        """`agree` maps a flag of this process to True if it is set in any process; see `distributed.joined`."""
        self.requested = False
        self._agree = agree

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Returns True if all processes stop now; each of them calls this equally often."""
        agreed = self._agree(self.requested)
        if agreed:  # if not, a signal may have come while the processes met, and counts at the next meeting
            self.requested = True
        return agreed

    def until(self, items: Iterable) -> Iterator:
        """Yields the same items, or raises `Stopped` once a stop is agreed."""
        for item in items:
            if self.agreed():
                raise Stopped
            yield item

    def _request(self, number, _):
        again = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
        print(f"stopping{again}", file=sys.stderr, flush=True)
        self.requested = True
        # Clusters may send several signals in a row, but a second Ctrl-C comes from a person who means it.
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
