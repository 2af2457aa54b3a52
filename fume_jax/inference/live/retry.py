"""How long to wait before something is tried again."""

import random


class Backoff:
    """Waits that double from `first` to `most` seconds; each is drawn from its upper half.

    The random part keeps many clients of a server that comes back from coming back all at once.
    """

    def __init__(self, first: float = 0.5, most: float = 30.0):
        self._first, self._most = first, most
        self.tries = 0

    def next(self) -> float:
        """Returns the seconds until the next try, and counts it."""
        seconds = min(self._most, self._first * 2 ** min(self.tries, 30))
        self.tries += 1
        return seconds * random.uniform(0.5, 1)

    def reset(self) -> None:
        """Begins again with the first wait."""
        self.tries = 0
