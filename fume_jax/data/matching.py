"""Pairs the frames of two gases: images by name, films by time."""

import collections
import functools
import glob
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from fume_jax.data.films import PLAIN_FILM_SUFFIXES
from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES

# Times that differ by less are equal, in seconds.
ROUNDING = 1e-6
# Names of resource forks, which macOS puts beside files on other file systems.
_FORK = "._"
# A gas in a file name, with its separator.
_GAS_TOKEN = re.compile(rf"[-_. ](?:{'|'.join(GASES)})(?=[-_. ]|$)|^(?:{'|'.join(GASES)})[-_. ]", re.IGNORECASE)
# What the name of a mask has in addition to that of its frame.
_MASK = "_mask"
# Stands for the next frame of a film that has ended.
_END = (math.inf, None)


def match_images(given: dict[str, str]) -> tuple[dict[str, dict[str, Path]], tuple[str, ...]]:
    """Finds the images of each gas below the paths in `given`, and pairs them.

    Two image paths make one pair, whatever their names. Raises UserError as `sources.open_source` does.

    Returns:
      Files by name, in natural order, and gas.
      Notes for the user on other files in folders and patterns.
    """
    listed = {path: _list(path) for path in given.values()}
    found = {gas: _frames_of(gas, path, listed[path]) for gas, path in given.items()}
    if len(given) == 2 and all(Path(path).is_file() for path in given.values()):
        return {name_without_gas(Path(given["co2"])): {gas: Path(path) for gas, path in given.items()}}, ()
    if len(given) == 2 and not found["co2"].keys() & found["ch4"].keys():
        co2, ch4 = (f"{given[gas]} (such as {next(iter(files.values())).name})" for gas, files in found.items())
        remedy = "Give the two frames of a pair one name, or predict one gas at a time."
        raise UserError(f"No frame of {co2} has the name of one of {ch4}. {remedy}")
    names = sorted(set().union(*found.values()), key=natural)
    matched = {name: {gas: files[name] for gas, files in found.items() if name in files} for name in names}
    _check_two(matched)
    taken = {file for files in found.values() for file in files.values()}
    rest = {path: _describe([file for file in files if file not in taken], files) for path, files in listed.items()}
    return matched, tuple(f"left out of {path}: {files}" for path, files in rest.items() if files)


def _list(path):
    """Returns the files of a folder or a pattern, or the one that the path is, sorted."""
    if Path(path).is_file():
        return [Path(path)]
    if Path(path).is_dir():
        files = Path(path).iterdir()
    elif glob.has_magic(path):
        files = map(Path, glob.glob(path, recursive=True))
    elif Path(path).exists():
        raise UserError(f"{path} is neither a file nor a folder. Name an image, a folder of images or a video.")
    else:
        raise UserError(f"There is no file or folder {path}.")
    return sorted(file for file in files if not file.name.startswith(_FORK) and not file.is_dir())


def _frames_of(gas, path, files):
    """Returns image files by frame name, without masks and those that are named for the other gas."""
    if Path(path).is_file():
        return {name_without_gas(Path(path)): Path(path)}
    frames, beside = {}, _stems(files)
    for file in files:
        if _is_image(file) and not _is_mask(file, beside) and gas_of(file.stem) in (None, gas):
            name = name_without_gas(file)
            if name in frames:
                remedy = "Frames pair by the name without gas: keep one, or choose with a pattern such as 'folder/a*'."
                raise UserError(f"{frames[name]} and {file} share a name, {name!r}. {remedy}")
            frames[name] = file
    if not frames:
        expected = f"expected files ending in {', '.join(IMAGE_SUFFIXES)}, got {_describe(files, files) or 'no file'}"
        raise UserError(f"{path} holds no image for {gas.upper()}; {expected}. A video is given by its own path.")
    return frames


def _check_two(matched):
    """Raises UserError if one file would be both frames of a pair."""
    real = functools.cache(os.path.realpath)
    for name, files in matched.items():
        if len({(real(file.parent), file.name) for file in files.values()}) < len(files):
            file = files["co2"]
            names = " and ".join(f"{name}_{gas}{file.suffix}" for gas in GASES)
            raise UserError(
                f"{file} would be both CO2 and CH4 of the pair {name!r}. Name files for their gas, such as {names}; "
                "or give a folder for each gas, or one gas alone."
            )


def _describe(rest, files):
    """Says how many files of which kind the `rest` of the files is."""
    kinds, beside = collections.defaultdict(list), _stems(files)
    for file in rest:
        if file.suffix.lower() in PLAIN_FILM_SUFFIXES:
            kind = "films, each given by its own path"
        elif not _is_image(file):
            kind = "other files"
        elif _is_mask(file, beside):
            kind = "masks of images beside them"
        else:
            kind = f"images named for {gas_of(file.stem).upper()}"
        kinds[kind].append(file.name)
    return "; ".join(f"{kind}: {len(names)} (such as {names[0]})" for kind, names in kinds.items())


def _is_image(file):
    return file.suffix.lower() in IMAGE_SUFFIXES


def _stems(files):
    return {(file.parent, file.stem) for file in files if _is_image(file)}


def _is_mask(file, beside):
    """Returns whether a file has the name of an image `beside` it with `_mask` added."""
    return file.stem.lower().endswith(_MASK) and (file.parent, file.stem[: -len(_MASK)]) in beside


def natural(name):
    """Returns a key by which frame_2 comes before frame_10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)], name


def gas_of(name: str) -> str | None:
    """Returns the gas that a name without suffix names, set off by a separator or alone; None without one."""
    if name.lower() in GASES:
        return name.lower()
    token = _GAS_TOKEN.search(name)
    return token and token[0].strip("-_. ").lower()


def name_without_gas(path: Path) -> str:
    """Returns the name of a file without suffix and gas."""
    return _GAS_TOKEN.sub("", path.stem) or path.stem


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
