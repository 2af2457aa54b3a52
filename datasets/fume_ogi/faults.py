"""Kinds of faults in a folder of recordings, and the report that lists all of them at once."""

import collections
import contextlib
import csv
import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fume_jax.data.labels.label import Fault
from fume_jax.runtime.files import replacing
from fume_jax.runtime.names import csv_text

KINDS = {
    "missing_file": "a frame or mask is not named, or its file is missing",
    "unreadable_file": "a frame or mask cannot be decoded as an image",
    "outside": "a path leaves the folder of the recordings",
    "size": "a frame and its mask differ in size",
    "mask_values": "a mask has values other than 0 background, 1 tube, 2 gas, 254 not gas, 255 unknown, or only 255",
    "mask_form": "a mask is stored in a form that does not say its classes for certain",
    "gas": "the gas is unknown, or a pair contradicts itself",
    "class": "the class is unknown, or its name is not that of its number",
    "ph": "the pH is not between 0 and 14",
    "original": "original_sample_id, by which frames are split, is empty or shortened",
    "group": "recording_id or subject_id, by which frames are split, is empty or shortened, or contradicts other ids",
    "label_source": "who made the mask is unknown",
    "table": "a row does not fit the header of its file",
    "duplicate_row": "an earlier row has the same frame or pair",
    "duplicate_frame": "an earlier split has a frame of the same pixels: a leak",
    "contradicting_frame": "an earlier row has the same pixels of the same gas, and another class",
    "empty_class": "a split has no frame of a class",
    "no_gas": "no mask of a split, of a gas, or of all recordings holds gas",
}
# Kinds of faults that no row has; to allow one drops nothing.
OF_NO_ROW = ("empty_class", "no_gas")
WARNINGS = {
    "class_against_ph": "the class is not the usual one of the pH; class_id is kept",
    "frame_used_twice": "a frame is in more than one pair of a split",
    "no_recording": "nothing tells which frames are of one film, so neighbours may be in train and in test",
    "partly_grouped": "only a part of the frames has an id, which is not used",
    "near_duplicate": "a frame looks like one of an earlier split: the splits may leak",
    "ignored_without_gas": "masks hold 255, which is unknown here and not gas, and no gas",
    "colored_frame": "frames are coloured, and only their luminance is used",
    "frame_note": "frames are read, but not as they should be",
}
# Kinds of faults of labels that are imported; none can be allowed.
IMPORT_KINDS = {
    "layout": "the source, or a file in it, does not hold what the format asks for",
    "missing_file": "a file is missing, or an image that a label is of is not listed",
    "unreadable_file": "a file is damaged, or of no kind that is read",
    "duplicate": "a frame, a name or an id is there twice",
    "size": "a frame and its labels differ in size",
    "label": "nobody says what a label stands for, or it contradicts itself",
    "outline": "a shape has no outline, or one that cannot be drawn",
    "mask_values": "a mask has values or colours that stand for nothing",
    "mask_form": "a mask is stored in a form that does not say its classes for certain",
    "gas": "the gas is unknown, or contradicts itself",
    "ph": "the pH is unknown, not between 0 and 14, or contradicts itself",
    "class": "the class is unknown, or contradicts itself",
    "subject": "the subject contradicts itself",
    "other_frame": "another picture of that name was imported before",
    "same_frame": "the same picture is there by another name, with another pH or class",
    "no_gas": "no mask holds gas",
    "conflict": "a person has labelled the frame otherwise already, which is kept; --replace takes the new label",
}
EXAMPLES_PER_KIND = 3


def summary(
    faults: Sequence[Fault], shown: int = EXAMPLES_PER_KIND, kinds: Mapping[str, str] = KINDS | WARNINGS
) -> str:
    """Returns lines that count the faults of each kind and show the first ones, `shown` of each."""
    by_kind = collections.defaultdict(list)
    for fault in faults:
        by_kind[fault.kind].append(fault)
    lines = []
    for kind, meaning in kinds.items():
        if found := by_kind[kind]:
            lines.append(f"  {len(found):6d} {kind}: {meaning}")
            lines += [f"           {fault.place}: {fault.message}" for fault in found[:shown]]
            if len(found) > shown:
                lines.append(f"           and {len(found) - shown} more")
    return "\n".join(lines)


def write_report(path: Path, faults: Sequence[Fault]) -> None:
    """Writes a CSV file with a row for each fault, in the order of files and row numbers; OSError if it cannot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # What is no file, such as /dev/stdout, is written to and not replaced.
    target = contextlib.nullcontext(path) if path.exists() and not path.is_file() else replacing(path)
    with target as written, written.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "place", "message"])
        for fault in sorted(faults, key=_place):
            writer.writerow([csv_text(text) for text in dataclasses.astuple(fault)])


def _place(fault):
    # Numbers are compared as numbers: row 9 comes before row 10.
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", fault.place)]
