"""Opens films, which are videos and files of many frames, behind one interface."""

import functools
import glob
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fume_jax.data import video
from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.gray import luminance, to_levels
from fume_jax.data.images import IMAGE_SUFFIXES, LEVELS, PALETTE_NOTE, is_colored
from fume_jax.data.scale import RECORDING, SAMPLED, Limits, find_limits
from fume_jax.data.stacks import SUFFIXES, Stack, open_stack
from fume_jax.runtime.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg", ".ts", ".ogv")
# Names of files that hold many frames; those of TIFF may be images.
PLAIN_FILM_SUFFIXES = (*VIDEO_SUFFIXES, *SUFFIXES)


class Film(NamedTuple):
    """Describes the film or stack of one gas.

    Attributes:
      read: starts to read: times in seconds, and numbers [H, W] or [H, W, C] or why there are none.
      sample: reads about so many frames, spread over the film.
      frame: reads one by its position, from 0; UnreadableFrame if there is none.
      num_frames, rate, clock, unit: as in `Stack`; `rate` is never None.
      notes: for the user.
    """

    read: Callable[[], Iterator[tuple[float, np.ndarray | UnreadableFrame]]]
    sample: Callable[[int], list[np.ndarray]]
    frame: Callable[[int], np.ndarray]
    num_frames: int | None
    rate: float
    clock: float | None
    unit: str
    notes: tuple[str, ...]


def open_film(path: str, rate: float | None = None) -> Film | None:
    """Opens a film or a stack; None if the path is that of images. Raises UserError as `open_source` does."""
    suffix = Path(path).suffix.lower()
    if not Path(path).is_file():
        missing = suffix in VIDEO_SUFFIXES and not glob.has_magic(path) and not Path(path).exists()
        return _of_video(path) if missing else None  # which says so
    if (stack := open_stack(path)) is not None:
        return _of_stack(stack, rate)
    if suffix not in IMAGE_SUFFIXES and (suffix in VIDEO_SUFFIXES or video.is_video(path)):
        return _of_video(path)
    return None


def _of_stack(stack: Stack, rate):
    times, notes = stack.times, ()
    if times is None:
        step = 1 / (rate or video.DEFAULT_RATE)
        times = np.arange(stack.num_frames) * step
        if rate is None and stack.num_frames > 1:
            notes = (f"the file states no times; {video.DEFAULT_RATE} frames a second are assumed (--rate)",)

    def sample(count):
        positions = np.unique(np.linspace(0, stack.num_frames - 1, count).round().astype(int))
        frames = (stack.frame(int(i)) for i in positions)
        return [frame for frame in frames if not isinstance(frame, UnreadableFrame)]

    notes += _palette_note(sample(1) or sample(SAMPLED))
    rate = stack.rate or rate or float(video.DEFAULT_RATE)
    read = lambda: zip(times.tolist(), stack, strict=True)  # noqa: E731
    return Film(read, sample, stack.read, stack.num_frames, rate, stack.clock, stack.unit, notes)


def _of_video(path):
    header = video.read_header(path)
    sample = functools.partial(video.sample_video, path)
    notes = (PALETTE_NOTE,) if header.is_colored else ()
    read, frame = (functools.partial(function, path) for function in (video.read_video, video.read_frame))
    return Film(read, sample, frame, header.num_frames, header.rate, None, LEVELS, notes)


def _palette_note(frames):
    return (PALETTE_NOTE,) if any(map(is_colored, frames)) else ()


@functools.lru_cache(maxsize=32)
def scaled_film(path: str) -> tuple[Film, Limits | None]:
    """Opens a film to read frames of it by their positions, and finds its scale; None if it needs none.

    Raises UserError if the path holds no film.
    """
    if (track := open_film(path)) is None:
        raise UserError(f"{path} is a single frame; expected a film, of which frame_index names a frame.")
    return track, find_limits({"": track.sample}, RECORDING)[0].get("")


def read_film_frame(path: str, position: int) -> np.ndarray:
    """Reads a frame of a film, uint8 [H, W, 1] by the scale of the film; raises UnreadableFrame if it cannot."""
    track, limits = scaled_film(path)
    return to_levels(luminance(track.frame(position)), limits)
