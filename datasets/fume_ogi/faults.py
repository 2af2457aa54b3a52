"""What can be wrong with a folder of recordings, and how it is reported: everything at once."""

import collections
import csv
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

KINDS = {
    "missing_file": "a frame or mask is not named, or is not there",
    "unreadable_file": "a frame or mask is no image that can be decoded",
    "size": "a frame and its mask differ in size",
    "mask_values": "a mask has other values than 0 background, 1 tube, 2 gas",
    "gas": "no known gas, or a pair that contradicts itself",
    "class": "no known class, or a name that is not that of the number",
    "ph": "no pH between 0 and 14",
    "original": "no original_sample_id, by which frames are split",
    "duplicate_row": "a second row of the same frame or pair",
    "duplicate_frame": "a frame whose pixels are in an earlier split too: a leak",
    "empty_class": "a split without a single frame of a class",
}
WARNINGS = {
    "class_against_ph": "the class is not the usual one of the pH; class_id is kept",
    "frame_used_twice": "a frame is in more than one pair of a split",
}
SHOWN = 3


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something wrong: its kind, a key of KINDS or WARNINGS; where; and in words."""

    kind: str
    place: str  # file and row
    message: str


def summary(faults: Sequence[Fault]) -> str:
    """How many of each kind, and the first few of it."""
    by_kind = collections.defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    lines = []
    for kind, meaning in (KINDS | WARNINGS).items():
        if found := by_kind[kind]:
            lines.append(f"  {len(found):6d} {kind}: {meaning}")
            lines += [f"           {fault.place}: {fault.message}" for fault in found[:SHOWN]]
            lines += [f"           and {len(found) - SHOWN} more"] * (len(found) > SHOWN)
    return "\n".join(lines)


def write_report(path: Path, faults: Sequence[Fault]) -> None:
    """Every fault as a row of a CSV file, in the order of places: kind, place, message."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "place", "message"])
        writer.writerows(dataclasses.astuple(fault) for fault in sorted(faults, key=_place))


def _place(fault):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", fault.place)]
