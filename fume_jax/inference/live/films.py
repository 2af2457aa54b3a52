"""Writes annotated pictures as films: without end, in pieces of which the last ones stay."""

import contextlib
import datetime
from pathlib import Path

import numpy as np

from fume_jax.data.video import VideoWriter

# Frames per second that an encoder plans for; the times of frames are their own.
RATE = 10
# How the encoder works beside a model: three times as fast as by default, in less memory.
PRESET = "veryfast"
# Names of pieces and of events begin with the time, in UTC.
_STAMP = "%Y-%m-%dT%H%M%SZ"


def stamp(seconds: float) -> str:
    """Returns a time, in seconds since 1970, as part of a file's name that sorts by time."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime(_STAMP)


class RotatingFilm:
    """Writes `TIME.mp4` after `TIME.mp4` to a folder, and removes the oldest; for one thread.

    A piece appears under its name when it is complete.
    """

    def __init__(self, folder: Path, seconds: float, keep: int):
        """Prepares to write pieces of so many seconds, of which `keep` stay."""
        self._folder, self._seconds, self._keep = folder, seconds, keep
        self._stack, self._writer, self._begin = contextlib.ExitStack(), None, None

    def write(self, picture: np.ndarray, time: float) -> None:
        """Adds a picture, RGB uint8 [H, W, 3], of a time in seconds since 1970; after an error a new piece begins."""
        if self._writer is not None and time - self._begin >= self._seconds:
            self.close()
        if self._writer is None:
            self._begin = time
            self._writer = self._stack.enter_context(VideoWriter(self._folder / f"{stamp(time)}.mp4", RATE, PRESET))
        try:
            self._writer.write(picture, max(0.0, time - self._begin))
        except Exception as error:
            self._writer = None
            self._stack.pop_all().__exit__(type(error), error, error.__traceback__)  # removes the piece
            raise

    def close(self) -> None:
        """Completes the piece at work."""
        self._writer = None
        self._stack.close()
        pieces = sorted(self._folder.glob("[0-9]*T[0-9]*Z.mp4"))
        for piece in pieces[: -self._keep]:
            piece.unlink(missing_ok=True)
