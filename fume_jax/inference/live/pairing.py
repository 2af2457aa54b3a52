"""Pairs the newest frames of two streams, by arrival or by clock."""

from collections.abc import Mapping, Sequence, Set

from fume_jax.inference.live.streams import LiveFrame

ARRIVAL, CLOCK = "arrival", "clock"
# Seconds that a frame waits for one of the same clock time, which may have a slower way, and how many frames of a
# stream are kept meanwhile.
CLOCK_WAIT, CLOCK_DEPTH = 1.0, 32


class Pairing:
    """Chooses which frames are predicted together.

    Two frames are a pair if they are at most `tolerance` seconds apart, by their arrival or by their clock. Of all
    pairs the newest is chosen. A frame without partner is chosen alone once one has waited for `wait` seconds: the
    tolerance, or `CLOCK_WAIT` by clock. It need not wait if the other stream is lost.
    """

    def __init__(self, mode: str, tolerance: float):
        """Takes `ARRIVAL` or `CLOCK`, and a distance in seconds."""
        self.mode, self.tolerance = mode, tolerance
        self.depth, self.wait = (CLOCK_DEPTH, CLOCK_WAIT) if mode == CLOCK else (1, tolerance)
        self._since = None

    def choose(self, waiting: Mapping[str, Sequence[LiveFrame]], lost: Set[str], now: float) -> dict[str, LiveFrame]:
        """Returns the frames to predict now, by gas; empty if it is better to wait.

        Args:
          waiting: by gas, frames that were not taken, the oldest first; a gas without camera is missing.
          lost: the gases whose streams give no frames.
          now: seconds of the monotonic clock.
        """
        there = {gas: frames for gas, frames in waiting.items() if frames}
        if not there:
            self._since = None
            return {}
        if self._since is None:
            self._since = now
        chosen = self._pair(there) if len(there) == 2 else {}
        waited = now - self._since >= self.wait
        if not chosen and (waited or (len(there) == 1 and set(waiting) - set(there) <= lost)):
            gas = max(there, key=lambda gas: self._time(there[gas][-1]))
            chosen = {gas: there[gas][-1]}
        if chosen:
            self._since = None
        return chosen

    def distance(self, frames: Mapping[str, LiveFrame]) -> float | None:
        """Returns by how many seconds CH4 is later than CO2; None without both."""
        return self._time(frames["ch4"]) - self._time(frames["co2"]) if len(frames) == 2 else None

    def _pair(self, there):
        first, second = there
        pairs = [
            (min(self._time(a), self._time(b)), -abs(self._time(a) - self._time(b)), a, b)
            for a in there[first]
            for b in there[second]
            if abs(self._time(a) - self._time(b)) <= self.tolerance
        ]
        if not pairs:
            return {}
        *_, a, b = max(pairs, key=lambda pair: pair[:2])
        return {first: a, second: b}

    def _time(self, frame):
        return frame.clock if self.mode == CLOCK else frame.arrival
