"""Opens the frames of one or two gases, from images, films and stacks, and reads pairs of them."""

import contextlib
import dataclasses
import functools
import glob
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fume_jax.data import video
from fume_jax.data.gray import luminance, recording_limits, to_levels
from fume_jax.data.images import IMAGE_SUFFIXES, LEVELS, PALETTE_NOTE, UnreadableFrame, is_colored, read_values
from fume_jax.data.matching import match_images, match_times
from fume_jax.data.stacks import Stack, open_stack
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg", ".ts", ".ogv")
# Frames, spread over a recording, that its scale is taken from.
SAMPLED = 24
# How the numbers of frames that are deeper than 8 bits become grey levels.
RECORDING, FRAME = "recording", "frame"

Limits = tuple[float, float]


class Pair(NamedTuple):
    """Holds a frame of each gas, or of one."""

    name: str
    time: float | None  # seconds from the start of the recording; None for images
    frames: dict[str, Path | np.ndarray | UnreadableFrame]  # by gas: a file, or numbers [H, W] or [H, W, C]


class Loaded(NamedTuple):
    """Holds the frames of a pair, each by gas.

    Attributes:
      frames: grey levels, uint8 [H, W, 1].
      values: what the camera measured, numbers [H, W] in the unit of the source.
      faults: error messages of unreadable frames.
      notes: what the user should know of a frame that was read.
    """

    frames: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    faults: dict[str, str]
    notes: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Source:
    """Holds pairs in order; those of films are read anew on each iteration.

    Attributes:
      pairs: the pairs.
      gases: those with a path.
      total: number of images; least number of frames in an undamaged film, if its files state it.
      rate: frames per second of a film; None for images.
      limits: by gas, the numbers that become black and white in all frames; without one each frame has its own range,
        or its numbers are grey levels already.
      units: of the numbers, by gas.
      clock: seconds since 1970 at which the times of the pairs begin, None if the files do not say.
      notes: what was assumed or found, for the user.
    """

    pairs: Iterable[Pair]
    gases: tuple[str, ...]
    total: int | None = None
    rate: float | None = None
    limits: dict[str, Limits] = dataclasses.field(default_factory=dict)
    units: dict[str, str] = dataclasses.field(default_factory=dict)
    clock: float | None = None
    notes: tuple[str, ...] = ()


class Track(NamedTuple):
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


def parse_range(text: str) -> str | Limits:
    """Returns `RECORDING`, `FRAME`, or the two numbers of LOW,HIGH; UserError for anything else."""
    if text in (RECORDING, FRAME):
        return text
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not -np.inf < low < high < np.inf:
        raise UserError(f"range is {text!r}; expected recording, frame, or LOW,HIGH in the unit of the frames.")
    return low, high


def open_source(
    co2: str | None,
    ch4: str | None,
    *,
    range: str | Limits = RECORDING,
    rate: float | None = None,
    offset: float | None = None,
    start: float | None = None,
    stop: float | None = None,
) -> Source:
    """Finds the frames of one or two gases and pairs them.

    The path of a gas is an image, a folder of images, a pattern of images (`*`, `?`, `[`), a video, or a file of many
    frames: SEQ, CSQ, TIFF, `.npy` or `.npz`. What a file holds counts, not its name.

    Two image paths make one pair, whatever their names. Other images pair by file name without suffix and gas:
    `a_co2.png` and `CH4-a.tif` are the pair `a`. One folder may hold both gases: a file named for a gas counts for that
    gas alone. Pairs are sorted by name, numbers in it by their value. Links to missing files and whatever else has the
    name of an image are pairs too, so that `load` reports them; resource forks of macOS, `._NAME`, are not.

    Frames of two films pair by time, each with the nearest one at most half a frame away, at the higher frame rate.
    Pairs are named `frame_000000` and so on, in order of time. A frame without partner makes a pair with one gas.

    Args:
      co2, ch4: paths.
      range: how numbers of more than 8 bits become grey levels, see `parse_range`.
      rate: frames per second of files that state no times.
      offset: seconds by which the clock of CH4 is ahead of that of CO2. None takes the clock times in the files, where
        both have some that overlap, else 0.
      start, stop: seconds of a film at which the first and the last pair lie, None for its ends.

    Raises:
      UserError: if no path is given, a path holds no frames, a film is combined with images or unreadable, two images
        of a gas share a name, or the images of two gases share none.
    """
    given = {gas: path for gas, path in zip(GASES, (co2, ch4), strict=True) if path is not None}
    if not given:
        raise UserError("Give the frames of at least one gas: --co2=PATH, --ch4=PATH or both.")
    if co2 == ch4 and Path(co2).is_file():
        raise UserError(f"--co2 and --ch4 are the same file, {co2}. Give one of them, or a file for each gas.")
    tracks = {gas: track for gas, path in given.items() if (track := open_track(path, rate)) is not None}
    if not tracks:
        if (start, stop) != (None, None):
            path = next(iter(given.values()))
            raise UserError(f"{path} holds images, which have no times; start and stop are for films.")
        matched = match_images(given)
        pairs = [Pair(name, None, frames) for name, frames in matched.items()]
        files = {gas: [pair.frames[gas] for pair in pairs if gas in pair.frames] for gas in given}
        units = {gas: next((found.unit for found in _read_some(paths, 1)), LEVELS) for gas, paths in files.items()}
        samples = {gas: functools.partial(_sample_images, paths) for gas, paths in files.items()}
        limits, notes = _limits(samples, range)
        return Source(pairs, tuple(given), len(pairs), limits=limits, units=units, notes=notes)
    if len(tracks) < len(given):
        (film,), (images,) = (tracks, set(given) - set(tracks))
        remedy = "Give two films or the images of both gases, or predict one gas at a time."
        raise UserError(f"{given[film]} is a film and {given[images]} is none. {remedy}")
    shifts, clock, notes = _align(tracks, offset)
    counts = [0 if (start, stop) != (None, None) else track.num_frames for track in tracks.values()]
    fastest = max(track.rate for track in tracks.values())
    limits, range_notes = _limits({gas: track.sample for gas, track in tracks.items()}, range)
    notes += range_notes + tuple(f"{given[gas]}: {note}" for gas, track in tracks.items() for note in track.notes)
    span = (-np.inf if start is None else start, np.inf if stop is None else stop)
    return Source(
        pairs=_Film(tracks, shifts, 0.5 / fastest, span),
        gases=tuple(given),
        total=max(counts) if all(counts) else None,
        rate=fastest,
        limits=limits,
        units={gas: track.unit for gas, track in tracks.items()},
        clock=clock,
        notes=notes,
    )


def load(pair: Pair, limits: dict[str, Limits] | None = None) -> Loaded:
    """Reads the frames of a pair, with the limits of its `Source` by gas."""
    loaded = Loaded({}, {}, {}, {})
    for gas, frame in pair.frames.items():
        try:
            if isinstance(frame, UnreadableFrame):
                raise frame
            image = frame
            if isinstance(frame, Path):
                image, _, note = read_values(frame)
                if note:
                    loaded.notes[gas] = note
            values = luminance(image)
            loaded.frames[gas] = to_levels(values, (limits or {}).get(gas))
            loaded.values[gas] = values
        except (UnreadableFrame, ValueError) as error:
            loaded.faults[gas] = f"{frame}: {error}" if isinstance(frame, Path) else str(error)
    return loaded


@functools.lru_cache(maxsize=32)
def open_film(path: str) -> tuple[Track, Limits | None]:
    """Opens a film to read frames of it by their positions, and finds its scale; None if it needs none.

    Raises UserError if the path holds no film.
    """
    if (track := open_track(path)) is None:
        raise UserError(f"{path} is a single frame; expected a film, of which frame_index names a frame.")
    return track, _limits({"": track.sample}, RECORDING)[0].get("")


def read_film_frame(path: str, position: int) -> np.ndarray:
    """Reads a frame of a film, uint8 [H, W, 1] by the scale of the film; raises UnreadableFrame if it cannot."""
    track, limits = open_film(path)
    return to_levels(luminance(track.frame(position)), limits)


def open_track(path: str, rate: float | None = None) -> Track | None:
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
    steps = np.diff(times)
    rate = float(1 / np.median(steps)) if len(steps) else rate or float(video.DEFAULT_RATE)
    read = lambda: zip(times.tolist(), stack, strict=True)  # noqa: E731
    return Track(read, sample, stack.read, stack.num_frames, rate, stack.clock, stack.unit, notes)


def _of_video(path):
    header = video.read_header(path)
    sample = functools.partial(video.sample_video, path)
    notes = (PALETTE_NOTE,) if header.is_colored else ()
    read, frame = (functools.partial(function, path) for function in (video.read_video, video.read_frame))
    return Track(read, sample, frame, header.num_frames, header.rate, None, LEVELS, notes)


def _palette_note(frames):
    return (PALETTE_NOTE,) if any(map(is_colored, frames)) else ()


class _Film:
    """Pairs the frames of films by time, from the first to the last time of `span`, anew on each iteration."""

    def __init__(self, tracks, shifts, tolerance, span):
        self._tracks, self._shifts, self._tolerance, self._span = tracks, shifts, tolerance, span

    def __iter__(self):
        streams = [self._stream(gas) if gas in self._tracks else iter(()) for gas in GASES]
        for position, timed in enumerate(match_times(*streams, self._tolerance)):
            frames = {gas: frame for gas, (_, frame) in zip(GASES, timed, strict=True) if frame is not None}
            time = next(time for time, frame in timed if frame is not None)
            if time > self._span[1]:
                return
            if time >= self._span[0]:
                yield Pair(f"frame_{position:06d}", time, frames)

    def _stream(self, gas):
        return ((time + self._shifts[gas], frame) for time, frame in self._tracks[gas].read())


def _align(tracks, offset):
    """Returns what to add to the times of each gas, the clock time at which they then begin, and notes."""
    clocks = {gas: track.clock for gas, track in tracks.items() if track.clock is not None}
    clock = min(clocks.values(), default=None)
    if len(tracks) < 2:
        return dict.fromkeys(tracks, 0.0), clock, ()
    if offset is not None:
        return {"co2": 0.0, "ch4": -offset}, clocks.get("co2"), ()
    if len(clocks) < 2:
        return dict.fromkeys(tracks, 0.0), clock, ()
    ends = [clocks[gas] + (track.num_frames or 1) / track.rate for gas, track in tracks.items()]
    apart = clocks["ch4"] - clocks["co2"]
    if max(clocks.values()) >= min(ends):
        note = f"the clock times of the films are {abs(apart):,.1f} s apart and do not overlap, so both begin together"
        return dict.fromkeys(tracks, 0.0), clocks["co2"], (f"{note}; --offset=SECONDS says how they belong together",)
    note = f"by the clocks of the cameras, the film of CH4 begins {apart:+.3f} s after that of CO2 (--offset)"
    return {gas: clocks[gas] - clock for gas in tracks}, clock, (note,)


def _limits(samples, range):
    """Returns the limits of each gas whose frames are deeper than 8 bits, and notes; `samples` read frames by gas."""
    limits, notes = {}, ()
    for gas, sample in samples.items():
        # One frame tells an 8-bit film; the first may be damaged.
        if all(frame.dtype == np.uint8 for frame in sample(1) or sample(SAMPLED)):
            if not isinstance(range, str):
                notes += (f"the frames of {gas.upper()} are grey levels already, which --range does not change",)
        elif not isinstance(range, str):
            limits[gas] = range
        elif range == RECORDING:
            frames = []
            for frame in sample(SAMPLED):
                with contextlib.suppress(UnreadableFrame, ValueError):  # reported when the frames are read
                    frames.append(luminance(frame))
            if len(frames) > 1 and (found := recording_limits(frames)) is not None:
                limits[gas] = found
    return limits, notes


def _sample_images(files, count):
    return [found.values for found in _read_some(files, count)]


def _read_some(files, count):
    """Reads about so many files, spread over all; those that cannot be read give way to the next."""
    positions = np.unique(np.linspace(0, len(files) - 1, count).round().astype(int)).tolist()
    found = []
    for start, end in itertools.pairwise([*positions, len(files)]):
        for file in files[start:end]:
            try:
                found.append(read_values(file))
                break
            except UnreadableFrame:
                continue
    return found
