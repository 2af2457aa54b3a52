"""Finds events, times with much gas, and keeps what happened around them."""

import collections
import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from fume_jax.data.video import VideoWriter
from fume_jax.inference.live.films import PRESET, RATE, stamp
from fume_jax.runtime import files

# The most moments in memory, and the most seconds of an event on the disk; gas that stays is no event.
MOST_MOMENTS, MOST_SECONDS = 300, 600.0
# Quality of annotated pictures while they wait.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 92]
# Of frames, without loss, as fast as it goes.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class Detector:
    """Says whether there is an event: gas above a threshold for some time, until it is below for as long."""

    def __init__(self, threshold: float, hold_seconds: float):
        """Takes the share of the frame that is gas, and for how long it has to be above or below."""
        self._threshold, self._hold = threshold, hold_seconds
        self._on, self._since = False, None

    def update(self, time: float, fraction: float) -> bool:
        """Takes the next share of gas at a time in seconds; returns whether there is an event."""
        if (fraction > self._threshold) == self._on:
            self._since = None
            return self._on
        if self._since is None:
            self._since = time
        if time - self._since >= self._hold:
            self._on, self._since = not self._on, None
        return self._on


class _Moment(NamedTuple):
    time: float
    record: dict
    frames: dict[str, bytes]  # PNG, by gas
    picture: bytes  # JPEG


class EventRecorder:
    """Keeps the last seconds in memory, compressed, and writes them and what follows when an event begins.

    An event is a folder, `TIME`: `annotated.mp4`, `predictions.jsonl`, and the frames as they were measured,
    `co2/TIME_NUMBER.png`, which `fume predict` and `fume review` read. It ends `seconds` after the gas has gone. One
    thread calls it.
    """

    def __init__(self, folder: Path, seconds: float, tell: Callable[[str], object]):
        """Keeps so many seconds before and after an event."""
        self._folder, self._seconds, self._tell = folder, seconds, tell
        self._ring: collections.deque[_Moment] = collections.deque(maxlen=MOST_MOMENTS)
        self._stack, self._begin, self._last_on, self._spent = contextlib.ExitStack(), None, None, False
        self._path = self._writer = self._lines = self._first = None

    def add(
        self, time: float, record: Mapping, frames: Mapping[str, np.ndarray], picture: np.ndarray, event: bool
    ) -> None:
        """Adds a moment.

        Args:
          time: seconds since 1970.
          record: its line in `predictions.jsonl`.
          frames: uint8 or uint16 [H, W], by gas.
          picture: the annotated picture, RGB uint8 [H, W, 3].
          event: whether there is an event; see `Detector`.
        """
        pngs = {gas: cv2.imencode(".png", frame, _PNG)[1].tobytes() for gas, frame in frames.items()}
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), _JPEG)[1].tobytes()
        self._ring.append(_Moment(time, dict(record), pngs, jpeg))
        self._spent &= event  # gas that stays makes no second event
        while self._ring[0].time < time - self._seconds:
            self._ring.popleft()
        if self._begin is None and (self._spent or not event):
            return
        self._last_on = time if event else self._last_on
        try:
            if self._begin is None:
                self._start(time)
            while self._ring:
                self._write(self._ring.popleft())
        except Exception as error:
            self._spent = True
            self._finish(error)
            raise
        if time - self._last_on >= self._seconds or time - self._begin >= MOST_SECONDS:
            self._spent = event
            self._finish()

    def close(self) -> None:
        """Completes the event at work."""
        self._finish()

    def _start(self, time):
        self._begin = time
        self._path = self._folder / stamp(time)
        self._path.mkdir(parents=True, exist_ok=True)
        part = self._stack.enter_context(files.replacing(self._path / "predictions.jsonl"))
        self._lines = self._stack.enter_context(part.open("w", encoding="utf-8"))
        self._writer = self._stack.enter_context(VideoWriter(self._path / "annotated.mp4", RATE, PRESET))
        self._first = self._ring[0].time
        self._tell(f"event: gas since {stamp(time)}; it is written to {self._path}")

    def _write(self, moment):
        self._lines.write(json.dumps(moment.record) + "\n")
        for gas, png in moment.frames.items():
            path = self._path / gas / f"{moment.record['frame']}.png"
            path.parent.mkdir(exist_ok=True)
            with files.replacing(path, synced=False) as part:
                part.write_bytes(png)
        picture = cv2.imdecode(np.frombuffer(moment.picture, np.uint8), cv2.IMREAD_COLOR)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), max(0.0, moment.time - self._first))

    def _finish(self, error=None):
        if self._begin is None:
            return
        self._begin = None
        stack = self._stack.pop_all()
        if error is None:
            stack.close()
            self._tell(f"event: complete in {self._path}")
        else:
            stack.__exit__(type(error), error, error.__traceback__)
