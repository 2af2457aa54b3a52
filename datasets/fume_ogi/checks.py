"""Checks of all frames together: what no single file can tell, such as the same pixels in two splits."""

import posixpath
from collections import Counter, defaultdict

import numpy as np

from datasets.fume_ogi import hashing
from datasets.fume_ogi.annotations import Row, frames
from datasets.fume_ogi.content import Content
from datasets.fume_ogi.groups import group_of
from fume_jax.data.images import PALETTE_NOTE
from fume_jax.data.labels.label import Fault
from fume_jax.schema import CLASSES, GAS, GASES, IGNORE, MASK_CLASSES, NOT_GAS

# The most bits, of 256, in which the hashes of frames that look alike differ. README.md has what this finds.
MAX_DISTANCE = 32
_MEANINGS = {**dict(enumerate(MASK_CLASSES)), NOT_GAS: "not gas", IGNORE: "unknown"}
_UNKNOWN = (
    f"{IGNORE} means unknown here; if it is gas, import the masks by `fume import --from=folders --values={IGNORE}:gas`"
)

Rows, Contents = dict[str, list[Row]], dict[str, Content]  # by split, and by the key of the frame


def contradicting_colors(rows: Rows, contents: Contents) -> list[Fault]:
    """Returns a fault for every mask whose palette gives a colour to another class than an earlier one does."""
    first, faults = {}, []
    for _, row, frame in frames(rows):
        content = contents[frame.key]
        for label, color in content.colors if content else ():
            earlier, path = first.setdefault(color, (label, frame.mask_path))
            if earlier != label:
                message = f"{frame.mask_path} has the colour {color} at the index {label}, {path} at {earlier}"
                faults.append(Fault("mask_form", row.place, message))
    return faults


def contradicting_frames(rows: Rows, contents: Contents) -> list[Fault]:
    """Returns a fault for every frame whose pixels an earlier row of its gas has with another class."""
    first, faults = {}, []
    for _, row, frame in frames(rows):
        if content := contents[frame.key]:
            earlier = first.setdefault((frame.gas, content.frame_digest), row)
            if earlier.label != row.label:
                classes = f"is {CLASSES[row.label]}, and has the pixels of {earlier.place}, {CLASSES[earlier.label]}"
                faults.append(Fault("contradicting_frame", row.place, f"{frame.key} {classes}"))
    return faults


def duplicate_frames(by_split: Rows, contents: Contents) -> list[Fault]:
    """Returns a fault for every frame whose pixels an earlier split has."""
    first, faults = {}, []
    for split, row, frame in frames(by_split):
        earlier, place = first.setdefault(contents[frame.key].frame_digest, (split, row.place))
        if earlier != split:
            message = f"{frame.key} ({split}) has the pixels of {place} ({earlier})"
            faults.append(Fault("duplicate_frame", row.place, message))
    return faults


def near_duplicates(by_split: Rows, contents: Contents, level: str) -> list[Fault]:
    """Returns a warning for every frame that looks like one of another group in an earlier split, of the same gas.

    Groups that are in several splits are told as a leak.
    """
    number, warnings = defaultdict(lambda: len(number)), []
    for gas in GASES:
        of_gas = (found for found in frames(by_split) if found[2].gas == gas)
        found = list({(split, frame.key): (split, row, frame) for split, row, frame in of_gas}.values())
        bits = hashing.bits([contents[frame.key].frame_hash for _, _, frame in found])
        groups = np.array([number[group_of(frame, level)] for _, _, frame in found], int)
        splits = np.array([split for split, _, _ in found])
        for start in np.flatnonzero(splits[1:] != splits[:-1]) + 1:
            own = np.flatnonzero(splits == splits[start])
            nearest, distance = hashing.nearest(bits[own], bits[:start], groups[own], groups[:start])
            for i, other, differing in zip(own, nearest, distance, strict=True):
                if differing <= MAX_DISTANCE:
                    (split, row, frame), (earlier, _, alike) = found[i], found[other]
                    message = f"{frame.key} ({split}) looks like {alike.key} ({earlier})"
                    warnings.append(Fault("near_duplicate", row.place, message))
    return warnings


def without_gas(by_split: Rows, contents: Contents) -> list[Fault]:
    """Returns a fault if no mask of all recordings holds gas, or else for every split and gas without any."""
    pixels = defaultdict(Counter)
    for split, _, frame in frames(by_split):
        for place in ("all recordings", f"split {split}", f"all {frame.gas} frames"):
            pixels[place].update(contents[frame.key].value_pixels)
    faults = []
    for place, counts in pixels.items():
        if not counts[GAS] and not (faults and faults[0].place == "all recordings"):
            total = counts.total()
            shares = [f"{value} {_MEANINGS[value]} ({n / total:.2%})" for value, n in counts.items() if n]
            message = f"no mask holds {GAS}, gas; the masks hold {' and '.join(shares)}"
            faults.append(Fault("no_gas", place, f"{message}. {_UNKNOWN}" if counts[IGNORE] else message))
    return faults


def ignored_without_gas(by_split: Rows, contents: Contents) -> list[Fault]:
    """Returns a warning if masks hold IGNORE and no gas, while others hold gas."""
    found = [(row, frame, contents[frame.key]) for _, row, frame in frames(by_split)]
    empty = [(row, frame, content) for row, frame, content in found if not content.class_pixels[GAS]]
    suspect = [(row, frame) for row, frame, content in empty if content.ignored_pixels]
    if not suspect or len(empty) == len(found):
        return []  # `without_gas` tells it if there is no gas
    row, frame = suspect[0]
    message = f"{len(suspect)} of {len(found)} masks hold {IGNORE} and no gas, such as {frame.mask_path}. {_UNKNOWN}"
    return [Fault("ignored_without_gas", row.place, message)]


def noted_frames(by_split: Rows, contents: Contents) -> list[Fault]:
    """Returns a warning for every recording, or else film or folder, and every note on files of it."""
    first, count = {}, Counter()
    for _, row, frame in frames(by_split):
        if note := contents[frame.key].note:
            file = frame.frame_path if frame.frame_index >= 0 else posixpath.dirname(frame.frame_path) or "."
            key = frame.recording or file, note
            first.setdefault(key, row.place)
            count[key] += 1
    warnings = []
    for (name, note), place in first.items():
        kind = "colored_frame" if PALETTE_NOTE in note else "frame_note"
        warnings.append(Fault(kind, place, f"{count[name, note]} frame(s) of {name}: {note}"))
    return warnings


def frames_used_twice(by_split: Rows) -> list[Fault]:
    """Returns a warning for every frame that another pair of its split has, too."""
    first, warnings = {}, []
    for split, row, frame in frames(by_split):
        place = first.setdefault((split, frame.key), row.place)
        if place != row.place:
            warnings.append(Fault("frame_used_twice", row.place, f"{frame.key} as in {place}"))
    return warnings
