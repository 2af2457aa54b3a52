"""Stopping a run from outside, at a step of its own choosing."""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator


class Stopped(Exception):
    """Raised where work that can be done again later is left, because a stop was requested."""


class StopRequest:
    """While open, SIGINT (Ctrl-C), SIGTERM and SIGUSR2 set `requested` instead of interrupting what runs at the moment.

    SIGTERM and SIGUSR2 are how clusters announce that a job is about to be ended or moved. An interruption in the
    middle of compiled code or of a library's thread can be lost or crash the process. A second Ctrl-C acts as usual.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self, agree: Callable[[bool], bool] = bool):
        """`agree` says whether any process was asked to stop, given whether this one was; see `processes.joined`."""
        self.requested = False
        self._agree = agree

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self) -> bool:
        """Whether to stop now: the same in all processes, each of which calls this equally often."""
        self.requested = self._agree(self.requested)
        return self.requested

    def until(self, items: Iterable) -> Iterator:
        """The same items, until a stop is agreed, which raises `Stopped`."""
        for item in items:
            if self.agreed():
                raise Stopped
            yield item

    def _request(self, number, _):
        again = "; Ctrl-C again ends at once" if number == signal.SIGINT else ""
        print(f"stopping{again}", file=sys.stderr, flush=True)
        self.requested = True
        # Clusters may send several kinds in a row; a person who presses again means it.
        signal.signal(signal.SIGINT, self._previous[signal.SIGINT])
