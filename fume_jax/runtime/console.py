"""Output of a command while it works: progress bars on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterable

import jax
from tqdm import tqdm


class Console:
    """Output of the first process; the other processes print nothing, and a `quiet` console only warnings."""

    def __init__(self, *, quiet: bool = False):
        self._first = jax.process_index() == 0
        self._quiet = quiet
        self.bars = self._first and not quiet and sys.stderr.isatty()

    def info(self, text: str) -> None:
        """Prints lines above the bars, unless quiet."""
        if not self._quiet:
            self.print(text)

    def print(self, text: str) -> None:
        """Prints lines that must not be missed."""
        if self._first:
            tqdm.write(text)
            sys.stdout.flush()

    def warn(self, text: str) -> None:
        self.print(f"WARNING: {text}")

    def bar(self, *, total: int, unit: str, desc: str | None = None, initial: int = 0) -> tqdm:
        """Creates a progress bar, which is visible on a terminal only."""
        return tqdm(total=total, initial=initial, unit=unit, desc=desc, disable=not self.bars, mininterval=0.2)

    def over(self, items: Iterable, *, total: int, unit: str, desc: str) -> Iterable:
        """Yields the same items under a bar that disappears when they end."""
        return tqdm(items, total=total, unit=unit, desc=desc, disable=not self.bars, leave=False, mininterval=0.2)
