"""Opens the frames of one or two gases, from images, films and stacks, and reads pairs of them."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fume_jax.data.films import open_film
from fume_jax.data.gray import luminance, to_levels
from fume_jax.data.images import LEVELS, UnreadableFrame, read_values
from fume_jax.data.matching import match_images, match_times
from fume_jax.data.scale import RECORDING, SAMPLED, Limits, find_limits
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES

# What to do with frames that have no common scale.
_APART = "Put them into folders of their own, and predict one after the other."


class Pair(NamedTuple):
    """Holds a frame of each gas, or of one.

    Attributes:
      name: that of the pair.
      time: seconds from the start of the recording; None for images.
      frames: by gas a file, or numbers [H, W] or [H, W, C].
      positions: of the frames in their films, from 0, by gas; None for images.
      films: the paths of these, by gas; None for images.
      kinds: what numbers that need a scale are, see `Values.kind`, by gas; without one they may be of any kind.
    """

    name: str
    time: float | None
    frames: dict[str, Path | np.ndarray | UnreadableFrame]
    positions: dict[str, int] | None = None
    films: dict[str, str] | None = None
    kinds: dict[str, str] | None = None


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
    name of an image are pairs too, so that `load` reports them; resource forks of macOS, `._NAME`, are not. Masks,
    `NAME_mask.png` beside `NAME.png`, and files that are no images are left out, which is noted.

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
        of a gas share a name, the images of two gases share none, a file would be both frames of a pair, or the images
        of a gas have no common scale, as temperatures and grey levels.
    """
    given = {gas: path for gas, path in zip(GASES, (co2, ch4), strict=True) if path is not None}
    if not given:
        raise UserError("Give the frames of at least one gas: --co2=PATH, --ch4=PATH or both.")
    if len(given) == 2 and all(map(os.path.isfile, given.values())) and os.path.samefile(co2, ch4):
        raise UserError(f"--co2 and --ch4 are the same file, {co2}. Give one of them, or a file for each gas.")
    films = {gas: film for gas, path in given.items() if (film := open_film(path, rate)) is not None}
    if not films:
        source = _of_images(given, range)  # first, since it says what is missing
        if (start, stop) != (None, None):
            path = next(iter(given.values()))
            raise UserError(f"{path} holds images, which have no times; start and stop are for films.")
        return source
    if len(films) < len(given):
        (film,), (images,) = (films, set(given) - set(films))
        remedy = "Give two films or the images of both gases, or predict one gas at a time."
        raise UserError(f"{given[film]} is a film and {given[images]} is none. {remedy}")
    return _of_films(given, films, range, offset, (start, stop))


def _of_images(given, range):
    matched, notes = match_images(given)
    files = {gas: [frames[gas] for frames in matched.values() if gas in frames] for gas in given}
    read = {gas: list(_read_some(paths, SAMPLED)) for gas, paths in files.items()}
    first = {gas: _first_by_kind(gas, found) for gas, found in read.items()}
    kinds = {gas: kind for gas, found in first.items() for kind in found if kind is not None}
    units = {gas: found[kinds.get(gas)][1].unit if found else LEVELS for gas, found in first.items()}
    samples = {gas: functools.partial(_to_scale, found) for gas, found in read.items()}
    limits, range_notes = find_limits(samples, range)
    notes += tuple(
        f"frames of {gas.upper()} that are grey levels of 8 bits (such as {found[None][0]}) stay as they are"
        for gas, found in first.items()
        if len(found) > 1
    )
    pairs = [Pair(name, None, frames, kinds=kinds) for name, frames in matched.items()]
    return Source(pairs, tuple(given), len(pairs), limits=limits, units=units, notes=notes + range_notes)


def _first_by_kind(gas, read):
    """Returns the first of some files, with its values, by `Values.kind`.

    Raises UserError if more than one of these needs a scale; `load` tells of others.
    """
    first = {}
    for file, found in read:
        first.setdefault(found.kind, (file, found))
    if len(first.keys() - {None}) > 1:
        told = ", ".join(f"{kind} (such as {file})" for kind, (file, _) in first.items() if kind is not None)
        raise UserError(f"The frames of {gas.upper()} have no common scale: {told}. {_APART}")
    return first


def _to_scale(read, count):
    """Returns the values that a scale is for, of files that are spread over all."""
    values = [found.values for _, found in read if found.kind is not None]
    return values[:count] or [found.values for _, found in read[:count]]


def _of_films(given, films, range, offset, part):
    start, stop = part
    shifts, clock, notes = _align(films, offset)
    counts = [0 if part != (None, None) else film.num_frames for film in films.values()]
    fastest = max(film.rate for film in films.values())
    limits, range_notes = find_limits({gas: film.sample for gas, film in films.items()}, range)
    notes += range_notes + tuple(f"{given[gas]}: {note}" for gas, film in films.items() for note in film.notes)
    span = (-np.inf if start is None else start, np.inf if stop is None else stop)
    return Source(
        pairs=_Pairs(given, films, shifts, 0.5 / fastest, span),
        gases=tuple(given),
        total=max(counts) if all(counts) else None,
        rate=fastest,
        limits=limits,
        units={gas: film.unit for gas, film in films.items()},
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
                found = read_values(frame)
                expected = (pair.kinds or {}).get(gas, found.kind)
                if found.kind not in (None, expected):
                    raise UnreadableFrame(f"holds {found.kind}, other frames {expected}. {_APART}")
                image = found.values
                if found.note:
                    loaded.notes[gas] = found.note
            values = luminance(image)
            loaded.frames[gas] = to_levels(values, (limits or {}).get(gas))
            loaded.values[gas] = values
        except (UnreadableFrame, ValueError) as error:
            place = _place(pair, gas)
            loaded.faults[gas] = f"{place}: {error}" if place else str(error)
    return loaded


def _place(pair, gas):
    """Returns where a frame is from, in words; "" if its error says so itself, or nothing does."""
    frame = pair.frames[gas]
    if isinstance(frame, Path):
        return str(frame)
    if isinstance(frame, UnreadableFrame) or pair.films is None:
        return ""
    return f"{pair.films[gas]}, frame {pair.positions[gas]}"


class _Pairs:
    """Pairs the frames of films by time, from the first to the last time of `span`, anew on each iteration."""

    def __init__(self, paths, films, shifts, tolerance, span):
        self._paths, self._films, self._shifts, self._tolerance, self._span = paths, films, shifts, tolerance, span

    def __iter__(self):
        streams = [self._stream(gas) if gas in self._films else iter(()) for gas in GASES]
        for position, timed in enumerate(match_times(*streams, self._tolerance)):
            found = {gas: item for gas, (_, item) in zip(GASES, timed, strict=True) if item is not None}
            time = next(time for time, item in timed if item is not None)
            if time > self._span[1]:
                return
            if time >= self._span[0]:
                positions, frames = ({gas: item[i] for gas, item in found.items()} for i in (0, 1))
                yield Pair(f"frame_{position:06d}", time, frames, positions, self._paths)

    def _stream(self, gas):
        """Yields the times of a film in the recording, and its frames with their positions."""
        read = enumerate(self._films[gas].read())
        return ((time + self._shifts[gas], (position, frame)) for position, (time, frame) in read)


def _align(films, offset):
    """Returns what to add to the times of each gas, the clock time at which they then begin, and notes."""
    clocks = {gas: film.clock for gas, film in films.items() if film.clock is not None}
    clock = min(clocks.values(), default=None)
    if len(films) < 2:
        return dict.fromkeys(films, 0.0), clock, ()
    if offset is not None:
        return {"co2": 0.0, "ch4": -offset}, clocks.get("co2"), ()
    if len(clocks) < 2:
        return dict.fromkeys(films, 0.0), clock, ()
    ends = [clocks[gas] + (film.num_frames or 1) / film.rate for gas, film in films.items()]
    apart = clocks["ch4"] - clocks["co2"]
    if max(clocks.values()) >= min(ends):
        note = f"the clock times of the films are {abs(apart):,.1f} s apart and do not overlap, so both begin together"
        return dict.fromkeys(films, 0.0), clocks["co2"], (f"{note}; --offset=SECONDS says how they belong together",)
    note = f"by the clocks of the cameras, the film of CH4 begins {apart:+.3f} s after that of CO2 (--offset)"
    return {gas: clocks[gas] - clock for gas in films}, clock, (note,)


def _read_some(files, count):
    """Yields about so many files, spread over all, and their values; those that are damaged give way to the next."""
    positions = np.unique(np.linspace(0, len(files) - 1, count).round().astype(int)).tolist()
    for start, end in itertools.pairwise([*positions, len(files)]):
        for file in files[start:end]:
            try:
                found = read_values(file)
            except UnreadableFrame:
                continue
            yield file, found
            break
