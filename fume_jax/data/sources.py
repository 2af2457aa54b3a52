"""Frames of one or two gases, from images or videos: finding, matching and reading them."""

import collections
import dataclasses
import glob
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fume_jax.data import video
from fume_jax.data.images import IMAGE_SUFFIXES, UnreadableFrame, read_frame
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".wmv", ".mpg", ".mpeg", ".ts", ".ogv")
# Times nearer than this are one, seconds.
ROUNDING = 1e-6
# A gas in a name, with what sets it off from the rest.
_GAS_TOKEN = re.compile(rf"[-_. ](?:{'|'.join(GASES)})(?=[-_. ]|$)|^(?:{'|'.join(GASES)})[-_. ]", re.IGNORECASE)
# Of a video that has ended: a frame that never comes.
_END = (math.inf, None)


class Pair(NamedTuple):
    """A frame of each gas, or of one."""

    name: str
    time: float | None  # seconds from the start of the video; None of images
    frames: dict[str, Path | np.ndarray | UnreadableFrame]  # by gas: a file, or what was read, uint8 [H, W, 1]


@dataclasses.dataclass(frozen=True)
class Source:
    """Pairs in order. Those of videos are read while they are taken, once."""

    pairs: Iterable[Pair]
    gases: tuple[str, ...]  # that were given
    total: int | None = None  # of images how many; of video how many at least, if the files tell, undamaged
    rate: float | None = None  # of video, frames a second; None of images


def open_source(co2: str | None, ch4: str | None) -> Source:
    """Finds the frames of one or two gases and which belong together.

    Each gas is an image, a folder of images, a pattern of images (`*`, `?`, `[`) or a video.

    Two images make one pair, whatever their names. Otherwise images pair by file name, without ending and without the
    gas in it: `a_co2.png` and `CH4-a.tif` are the pair `a`. One folder may hold both: a file named for a gas is of that
    gas alone. Pairs are in the order of names.

    Frames of two videos pair by time, each with the nearest one if that is at most half a frame away, counted at the
    higher rate. Pairs are `frame_000000` and so on, in the order of time.

    A frame without partner stands alone, its other gas absent.

    Raises:
      UserError: if nothing is given or found, a video is given with images or cannot be read, two images of a gas share
        a name, or those of two gases share none.
    """
    given = {gas: path for gas, path in zip(GASES, (co2, ch4), strict=True) if path is not None}
    if not given:
        raise UserError("Give the frames of at least one gas: --co2=PATH, --ch4=PATH or both.")
    if co2 == ch4 and Path(co2).is_file():
        raise UserError(f"--co2 and --ch4 are the same file, {co2}. Give one, or the other's own.")
    videos = [path for path in given.values() if _is_video(path)]
    if not videos:
        pairs = _match_images(given)
        return Source(pairs, tuple(given), len(pairs))
    if len(videos) < len(given):
        (images,) = set(given.values()) - set(videos)
        raise UserError(
            f"{videos[0]} is a video and {images} is none. Give two videos or the images of both gases, or predict one "
            "gas at a time."
        )
    headers = [video.read_header(path) for path in given.values()]
    counts = [header.num_frames for header in headers]
    rate = max(header.rate for header in headers)
    return Source(_match_videos(given, 0.5 / rate), tuple(given), max(counts) if all(counts) else None, rate)


def load(pair: Pair) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Frames of a pair by gas, uint8 [H, W, 1], and by gas why others cannot be read, in words that name them."""
    frames, unreadable = {}, {}
    for gas, frame in pair.frames.items():
        if isinstance(frame, Path):
            try:
                frame = read_frame(frame)
            except UnreadableFrame as error:
                frame = UnreadableFrame(f"{frame}: {error}")
        if isinstance(frame, UnreadableFrame):
            unreadable[gas] = str(frame)
        else:
            frames[gas] = frame
    return frames, unreadable


def _is_video(path):
    if Path(path).suffix.lower() not in VIDEO_SUFFIXES or Path(path).is_dir():
        return False
    return Path(path).is_file() or not glob.has_magic(path)


def _match_images(given):
    found = {gas: _find(path, gas) for gas, path in given.items()}
    if len(given) == 2 and all(Path(path).is_file() for path in given.values()):
        return [Pair(_name(Path(given["co2"])), None, {gas: Path(path) for gas, path in given.items()})]
    if len(given) == 2 and not found["co2"].keys() & found["ch4"].keys():
        co2, ch4 = (f"{given[gas]} (such as {next(iter(files.values())).name})" for gas, files in found.items())
        raise UserError(
            f"No frame of {co2} has the name of one of {ch4}. Give the two frames of a pair one name, or predict one "
            "gas at a time."
        )
    names = sorted(set().union(*found.values()))
    return [Pair(name, None, {gas: files[name] for gas, files in found.items() if name in files}) for name in names]


def _find(path, gas):
    """Image files by the name of their frame; of a folder or pattern not those whose name holds another gas."""
    if Path(path).is_file():
        return {_name(Path(path)): Path(path)}
    if Path(path).is_dir():
        files = Path(path).iterdir()
    elif glob.has_magic(path):
        files = map(Path, glob.glob(path, recursive=True))
    else:
        raise UserError(f"There is no file or folder {path}.")
    frames = {}
    for file in sorted(files):
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file() and _gas(file) in (None, gas):
            name = _name(file)
            if name in frames:
                raise UserError(
                    f"{frames[name]} and {file} share a name, {name!r}, by which frames pair (a gas in it does not "
                    "count). Keep one, or choose with a pattern such as 'folder/a*'."
                )
            frames[name] = file
    if not frames:
        raise UserError(
            f"{path} holds no image for {gas.upper()}; expected files ending in {', '.join(IMAGE_SUFFIXES)}. "
            "A video is given by its own path."
        )
    return frames


def _gas(path):
    token = _GAS_TOKEN.search(path.stem)
    return token and token[0].strip("-_. ").lower()


def _name(path):
    return _GAS_TOKEN.sub("", path.stem) or path.stem


def _match_videos(paths, tolerance):
    streams = [video.read_video(paths[gas]) if gas in paths else iter(()) for gas in GASES]
    for position, timed in enumerate(match_times(*streams, tolerance)):
        frames = {gas: frame for gas, (_, frame) in zip(GASES, timed, strict=True) if frame is not None}
        yield Pair(f"frame_{position:06d}", next(time for time, frame in timed if frame is not None), frames)


def match_times(first: Iterator, second: Iterator, tolerance: float) -> Iterator[tuple]:
    """Merges two streams of (time, frame), looking no further ahead than the next frame of each.

    Yields:
      A (time, frame) of each stream, in order of time, each used once: the two nearest ones if they are at most
      `tolerance` apart, else one of them and (inf, None).
    """
    streams, ahead = (first, second), (collections.deque(), collections.deque())

    def look(stream, position):
        while len(ahead[stream]) <= position:
            ahead[stream].append(next(streams[stream], _END))
        return ahead[stream][position]

    while (times := (look(0, 0)[0], look(1, 0)[0])) != (math.inf, math.inf):
        early = int(times[1] < times[0])
        apart = times[1 - early] - times[early]
        nearer = abs(look(early, 1)[0] - times[1 - early]) < apart - ROUNDING
        together = apart <= tolerance + ROUNDING and not nearer
        yield tuple(ahead[k].popleft() if together or k == early else _END for k in range(2))
