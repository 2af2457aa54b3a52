"""How fast training goes, and whether it waits for its input."""

import time
from collections.abc import Iterator


class Pace:
    """How fast steps follow one another, and how long they waited for input, since it was last asked."""

    def __init__(self, batches: Iterator[dict], pairs_a_step: int):
        self._batches, self._pairs = batches, pairs_a_step
        self.restart()

    def restart(self) -> None:
        """Leaves out what happened since the last step, such as an evaluation."""
        self._start, self._steps, self._waited = time.perf_counter(), 0, 0.0

    def next_batch(self) -> dict:
        """The next batch."""
        start = time.perf_counter()
        batch = next(self._batches)
        self._waited += time.perf_counter() - start
        self._steps += 1
        return batch

    def measure(self) -> dict[str, float]:
        """`pairs_per_second`, and `input_wait`, the share of time spent waiting for batches; nothing before a step."""
        if not self._steps:
            return {}
        seconds = time.perf_counter() - self._start
        values = {
            "pairs_per_second": self._steps * self._pairs / seconds,
            "input_wait": self._waited / seconds,
        }
        self.restart()
        return values
