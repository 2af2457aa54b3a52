"""By-products: what a command makes besides its main result."""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterator

# The most failures of one kind that are told one by one.
SHOWN = 3


class ByProducts:
    """Makes by-products, any of which may fail: that is told, and ends nothing else. Threads may share it."""

    def __init__(self, tell: Callable[[str], object] = print):
        """`tell` prints a line."""
        self._tell, self._lock = tell, threading.Lock()
        self.failures = collections.Counter()  # by kind

    @contextlib.contextmanager
    def attempt(self, kind: str, name: str | None = None) -> Iterator[None]:
        """Tells of any error in the context and goes on behind it; `name`, if not `kind`, says what is made."""
        try:
            yield
        except Exception as error:  # whatever a library raises, the main result does not depend on it
            with self._lock:
                self.failures[kind] += 1
                if self.failures[kind] <= SHOWN:
                    self._tell(f"WARNING: {name or kind} could not be made: {reason(error)}")

    def summarize(self) -> None:
        """Tells how many failures there were beyond those that were told."""
        for kind, count in self.failures.items():
            if count > SHOWN:
                self._tell(f"WARNING: {kind}: {count - SHOWN:,} more could not be made")


def reason(error: Exception) -> str:
    """Returns why an error came, in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.strip().partition("\n")[0]
