"""Reads the streams of cameras, a thread each; of each stream the newest frames stay and older ones go."""

import collections
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.inference.live.cameras import FILM, Camera, parse_camera, read_camera
from fume_jax.inference.live.retry import Backoff
from fume_jax.runtime.byproducts import reason
from fume_jax.runtime.errors import UserError

# FFmpeg's words for a read that took longer than it may.
_TIMED_OUT = "Immediate exit requested"
# Seconds between two lines about damaged frames of a stream.
_DAMAGE_SECONDS = 60.0


class LiveFrame(NamedTuple):
    """Holds a frame of a stream.

    Attributes:
      values: what the camera measured, numbers [H, W].
      arrival: seconds of the monotonic clock at which it was decoded.
      clock: seconds since 1970 by the clock of the camera, or, if it sends none, by that of this machine at the first
        frame of the stream and the presentation times after it.
      seconds: presentation time in the stream; None if it states none.
    """

    values: np.ndarray
    arrival: float
    clock: float
    seconds: float | None


class Stream:
    """Keeps the newest frames of a camera that is read in a thread; connects again when it is lost.

    Attributes:
      connected: whether the last try gave a frame and did not break off since.
      ended: whether it was a film, and is over.
      frames, damaged, dropped, reconnects: numbers since the start. Frames that are replaced before they are taken are
        dropped.
      arrived: notified of every frame and every change; its lock guards the frames.
      has_clock: whether the camera sends its own clock.
    """

    def __init__(
        self,
        gas: str,
        camera: Camera,
        *,
        arrived: threading.Condition,
        tell: Callable[[str], object],
        timeout: float = 10.0,
        depth: int = 1,
        backoff: Backoff | None = None,
    ):
        """Prepares to read; `start` begins.

        Args:
          gas: the gas that the camera sees.
          camera: where it is.
          arrived: see the attribute; streams that are watched together share it.
          tell: prints a line.
          timeout: seconds without data after which the stream is lost.
          depth: number of frames that are kept.
          backoff: waits between tries.
        """
        self.gas, self.camera, self.timeout = gas, camera, timeout
        self.connected = self.ended = self.has_clock = False
        self.frames = self.damaged = self.dropped = self.reconnects = 0
        self._waiting: collections.deque[LiveFrame] = collections.deque(maxlen=depth)
        self.arrived, self._tell, self._backoff = arrived, tell, backoff or Backoff(most=10.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera of {gas}", daemon=True)
        self._name = f"{gas.upper()}: {camera.name}"
        self._last = self._found_at = self._lost_at = self._anchor = self._size = None
        self._damage_told, self._silent = -_DAMAGE_SECONDS, False

    def start(self) -> None:
        """Begins to read."""
        self._last = time.monotonic()
        self._thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """Ends reading. A device may hang in the system, so the thread is not waited for any longer than `seconds`."""
        self._stop.set()
        self._thread.join(seconds)

    def waiting(self) -> Sequence[LiveFrame]:
        """Returns the frames that were not taken yet, the oldest first; call it with the lock of `arrived`."""
        return self._waiting

    def take(self, frame: LiveFrame) -> None:
        """Removes a frame and all older ones, which are dropped; call it with the lock of `arrived`."""
        while self._waiting:
            if self._waiting.popleft() is frame:
                return
            self.dropped += 1

    def is_lost(self, now: float) -> bool:
        """Returns whether the stream gives no frames: it is not connected, has ended, or is silent for `timeout`."""
        return not self.connected or self.ended or now - self._last > self.timeout

    def tell_silence(self, now: float) -> None:
        """Tells once of a stream that is connected and gives no frames; call it now and then."""
        silent = self.connected and not self.ended and now - self._last > self.timeout
        if silent and not self._silent:
            self._tell(f"{self._name} gives no frame for {self.timeout:g} s")
        self._silent = silent

    def _run(self):
        while not self._stop.is_set():
            why = "no more data"
            try:
                for reading in read_camera(self.camera, self._stop, self.timeout):
                    self._put(reading)
            except UserError as error:
                why = str(error)
            except Exception as error:  # of any type: whatever FFmpeg reports, the camera is tried again
                why = reason(error)
                why = f"no data for {self.timeout:g} s" if why == _TIMED_OUT else why
            if self._stop.is_set() or self.camera.kind == FILM:
                break
            self._lose(why)
            self._stop.wait(self._backoff.next())
        with self.arrived:
            self.ended, self.connected = True, False
            self.arrived.notify_all()
        if not self._stop.is_set():
            self._tell(f"{self._name} ends after {self.frames:,} frames ({why})")

    def _put(self, reading):
        now = time.monotonic()
        if isinstance(reading.values, UnreadableFrame):
            self.damaged += 1
            if now - self._damage_told >= _DAMAGE_SECONDS:
                self._damage_told = now
                self._tell(f"{self._name}: a frame is left out: {reading.values} ({self.damaged:,} so far)")
            return
        if not self.connected:
            self._find(now, reading)
        if self._silent:
            self._tell(f"{self._name} gives frames again after {now - self._last:.1f} s")
            self._silent = False
        if (size := reading.values.shape) != self._size:
            if self._size is not None:
                self._tell(f"{self._name}: frames are {_text(size)} now, {_text(self._size)} before")
            self._size = size
        clock = reading.clock
        if clock is None:
            clock = time.time() if reading.seconds is None else self._anchor + reading.seconds
        with self.arrived:
            self.has_clock = reading.clock is not None
            self.frames += 1
            self.dropped += len(self._waiting) == self._waiting.maxlen
            self._waiting.append(LiveFrame(reading.values, now, clock, reading.seconds))
            self._last = now
            self.arrived.notify_all()

    def _find(self, now, reading):
        self._anchor = time.time() - (reading.seconds or 0.0)
        if self._lost_at is not None:
            self.reconnects += 1
            self._tell(f"{self._name} is back after {now - self._lost_at:.1f} s")
        else:
            self._tell(f"{self._name} sends {_text(reading.values.shape)}")
        self._found_at, self._lost_at = now, None
        self.connected = True

    def _lose(self, why):
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            self._tell(f"{self._name} is lost ({why}); trying again until it is back")
        # One that breaks off again and again is tried less and less often.
        if self.connected and now - self._found_at > self.timeout:
            self._backoff.reset()
        with self.arrived:
            self.connected = False
            self.arrived.notify_all()


def open_streams(given: Mapping[str, str], *, follow: bool = False, **options) -> list[Stream]:
    """Returns a stream of each camera, addresses by gas; `follow` is as in `parse_camera`, `options` as in `Stream`.

    Raises UserError if there is none, or `parse_camera` does.
    """
    if not given:
        raise UserError("Give the camera of at least one gas: --co2=ADDRESS, --ch4=ADDRESS or both.")
    arrived = threading.Condition()
    cameras = {gas: parse_camera(text, follow=follow) for gas, text in given.items()}
    return [Stream(gas, camera, arrived=arrived, **options) for gas, camera in cameras.items()]


def _text(size):
    return f"{size[1]}x{size[0]}"
