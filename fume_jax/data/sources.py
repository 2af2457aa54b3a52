"""Finds, matches and reads the frames of one or two gases, from images or videos."""

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
# Times that differ by less are equal, in seconds.
ROUNDING = 1e-6
# Names of resource forks, which macOS puts beside files on other file systems.
_FORK = "._"
# A gas in a file name, with its separator.
_GAS_TOKEN = re.compile(rf"[-_. ](?:{'|'.join(GASES)})(?=[-_. ]|$)|^(?:{'|'.join(GASES)})[-_. ]", re.IGNORECASE)
# Stands for the next frame of a video that has ended.
_END = (math.inf, None)


class Pair(NamedTuple):
    """Holds a frame of each gas, or of one."""

    name: str
    time: float | None  # seconds from the start of the video; None for images
    frames: dict[str, Path | np.ndarray | UnreadableFrame]  # by gas: a file, or the decoded frame, uint8 [H, W, 1]


@dataclasses.dataclass(frozen=True)
class Source:
    """Holds pairs in order; those of videos are read once, on iteration."""

    pairs: Iterable[Pair]
    gases: tuple[str, ...]  # those with a path
    total: int | None = None  # number of images; least number of frames in an undamaged video, if its files state it
    rate: float | None = None  # frames per second of a video; None for images


def open_source(co2: str | None, ch4: str | None) -> Source:
    """Finds the frames of one or two gases and pairs them.

    The path of a gas is an image, a folder of images, a pattern of images (`*`, `?`, `[`) or a video. A file with
    neither the name of an image nor of a video is a video if it holds one.

    Two image paths make one pair, whatever their names. Other images pair by file name without suffix and gas:
    `a_co2.png` and `CH4-a.tif` are the pair `a`. One folder may hold both gases: a file named for a gas counts for that
    gas alone. Pairs are sorted by name, numbers in it by their value. Links to missing files and whatever else has the
    name of an image are pairs too, so that `load` reports them; resource forks of macOS, `._NAME`, are not.

    Frames of two videos pair by time, each with the nearest one at most half a frame away, at the higher frame rate.
    Pairs are named `frame_000000` and so on, in order of time. A frame without partner makes a pair with one gas.

    Raises:
      UserError: if no path is given, a path holds no frames, a video is combined with images or unreadable, two images
        of a gas share a name, or the images of two gases share none.
    """
    given = {gas: path for gas, path in zip(GASES, (co2, ch4), strict=True) if path is not None}
    if not given:
        raise UserError("Give the frames of at least one gas: --co2=PATH, --ch4=PATH or both.")
    if co2 == ch4 and Path(co2).is_file():
        raise UserError(f"--co2 and --ch4 are the same file, {co2}. Give one of them, or a file for each gas.")
    videos = [path for path in given.values() if _is_video(path)]
    if not videos:
        pairs = _match_images(given)
        return Source(pairs, tuple(given), len(pairs))
    if len(videos) < len(given):
        (images,) = set(given.values()) - set(videos)
        remedy = "Give two videos or the images of both gases, or predict one gas at a time."
        raise UserError(f"{videos[0]} is a video and {images} is none. {remedy}")
    headers = [video.read_header(path) for path in given.values()]
    counts = [header.num_frames for header in headers]
    rate = max(header.rate for header in headers)
    return Source(_match_videos(given, 0.5 / rate), tuple(given), max(counts) if all(counts) else None, rate)


def load(pair: Pair) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads the frames of a pair, uint8 [H, W, 1] by gas; the second dict has the error messages of unreadable ones."""
    frames, unreadable = {}, {}
    for gas, frame in pair.frames.items():
        try:
            if isinstance(frame, UnreadableFrame):
                raise frame
            frames[gas] = read_frame(frame) if isinstance(frame, Path) else frame
        except UnreadableFrame as error:
            unreadable[gas] = f"{frame}: {error}" if isinstance(frame, Path) else str(error)
    return frames, unreadable


def _is_video(path):
    suffix = Path(path).suffix.lower()
    if Path(path).is_dir() or suffix in IMAGE_SUFFIXES:
        return False
    if Path(path).is_file():
        return suffix in VIDEO_SUFFIXES or video.is_video(path)
    return suffix in VIDEO_SUFFIXES and not glob.has_magic(path) and not Path(path).exists()


def _match_images(given):
    found = {gas: _find(path, gas) for gas, path in given.items()}
    if len(given) == 2 and all(Path(path).is_file() for path in given.values()):
        return [Pair(_name(Path(given["co2"])), None, {gas: Path(path) for gas, path in given.items()})]
    if len(given) == 2 and not found["co2"].keys() & found["ch4"].keys():
        co2, ch4 = (f"{given[gas]} (such as {next(iter(files.values())).name})" for gas, files in found.items())
        remedy = "Give the two frames of a pair one name, or predict one gas at a time."
        raise UserError(f"No frame of {co2} has the name of one of {ch4}. {remedy}")
    names = sorted(set().union(*found.values()), key=_natural)
    return [Pair(name, None, {gas: files[name] for gas, files in found.items() if name in files}) for name in names]


def _find(path, gas):
    """Returns image files by frame name; skips files in a folder or pattern that are named for the other gas."""
    if Path(path).is_file():
        return {_name(Path(path)): Path(path)}
    if Path(path).is_dir():
        files = Path(path).iterdir()
    elif glob.has_magic(path):
        files = map(Path, glob.glob(path, recursive=True))
    elif Path(path).exists():
        raise UserError(f"{path} is neither a file nor a folder. Name an image, a folder of images or a video.")
    else:
        raise UserError(f"There is no file or folder {path}.")
    frames = {}
    for file in sorted(file for file in files if not file.name.startswith(_FORK)):
        token = _GAS_TOKEN.search(file.stem)
        of_gas = token is None or token[0].strip("-_. ").lower() == gas
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir() and of_gas:
            name = _name(file)
            if name in frames:
                remedy = "Frames pair by the name without gas: keep one, or choose with a pattern such as 'folder/a*'."
                raise UserError(f"{frames[name]} and {file} share a name, {name!r}. {remedy}")
            frames[name] = file
    if not frames:
        expected = f"expected files ending in {', '.join(IMAGE_SUFFIXES)}. A video is given by its own path."
        raise UserError(f"{path} holds no image for {gas.upper()}; {expected}")
    return frames


def _natural(name):
    """Returns a key by which frame_2 comes before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def _name(path):
    return _GAS_TOKEN.sub("", path.stem) or path.stem


def _match_videos(paths, tolerance):
    streams = [video.read_video(paths[gas]) if gas in paths else iter(()) for gas in GASES]
    for position, timed in enumerate(match_times(*streams, tolerance)):
        frames = {gas: frame for gas, (_, frame) in zip(GASES, timed, strict=True) if frame is not None}
        yield Pair(f"frame_{position:06d}", next(time for time, frame in timed if frame is not None), frames)


def match_times(first: Iterator, second: Iterator, tolerance: float) -> Iterator[tuple]:
    """Merges two streams of (time, frame), reading each at most one frame ahead.

    Yields:
      A (time, frame) of each stream, in order of time, each used once: the two nearest ones if they are at most
      `tolerance` apart, else one of them and (inf, None).
    """
    streams, buffers = (first, second), (collections.deque(), collections.deque())

    def peek_time(stream, position):
        while len(buffers[stream]) <= position:
            buffers[stream].append(next(streams[stream], _END))
        return buffers[stream][position][0]

    while (times := (peek_time(0, 0), peek_time(1, 0))) != (math.inf, math.inf):
        early = int(times[1] < times[0])
        distance = times[1 - early] - times[early]
        next_is_nearer = abs(peek_time(early, 1) - times[1 - early]) < distance - ROUNDING
        paired = distance <= tolerance + ROUNDING and not next_is_nearer
        yield tuple(buffers[k].popleft() if paired or k == early else _END for k in range(2))
