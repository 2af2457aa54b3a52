"""Stopping a run from outside, at a step of its own choosing."""

import signal


class StopRequest:
    """While open, SIGINT (Ctrl-C) and SIGTERM set `requested` instead of interrupting whatever runs at that moment.

    An interruption in the middle of compiled code or of a library's thread can be lost or crash the process. A second
    signal acts as usual.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self):
        self.requested = False

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._request) for number in self.SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _request(self, *_):
        self.requested = True
        self.__exit__()
