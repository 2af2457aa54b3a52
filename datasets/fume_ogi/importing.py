"""Writes labelled frames in the layout of this dataset, and merges them with those that are there."""

import collections
import concurrent.futures
import csv
import dataclasses
import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.fume_ogi.annotations import (
    LABEL_SOURCES,
    README,
    SINGLE_COLUMNS,
    SOURCE_COLUMN,
    SPLIT_COLUMN,
    TABLE,
)
from datasets.fume_ogi.content import read_labelled, read_mask
from datasets.fume_ogi.recordings import Described, Describer
from datasets.paired_frames import prefetch_with_bar
from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.labels.label import VALUES, Fault, Label, place_of
from fume_jax.data.labels.manifest import Reviewed, mask_digest
from fume_jax.data.labels.pixels import MaskFile
from fume_jax.data.table import read_table
from fume_jax.evaluation.overlays import save
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing
from fume_jax.runtime.names import csv_text, file_name
from fume_jax.schema import BACKGROUND, CLASSES, IGNORE, NOT_GAS, TUBE

COLUMNS = (*SINGLE_COLUMNS, "recording_id", "subject_id", SOURCE_COLUMN, SPLIT_COLUMN)
PERSON, PREDICTION = LABEL_SOURCES
# What a later import of the same frame may say otherwise.
_DESCRIPTION = ("ph_value", "class_id", "subject_id", SPLIT_COLUMN)
# What becomes of a frame: `kept` means that the label that is there was kept.
OUTCOMES = ("added", "replaced", "unchanged", "kept")


@dataclasses.dataclass(frozen=True)
class Frame:
    """A labelled frame that has been read and checked; `row` is that of the table."""

    label: Label
    row: dict[str, str]
    pixels: dict[str, int]  # by the names in VALUES
    moved: int  # number of pixels of a mask image that took the nearest value


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did: frames by what became of them, conflicts with labels that are there, and notes."""

    frames: Mapping[str, Sequence[Frame]]  # by OUTCOMES
    conflicts: Sequence[Fault]
    described: int  # number of rows that were there and have another pH, class, subject or split now
    rows: int  # in the table


def check_labels(
    labels: Sequence[Label],
    describer: Describer,
    *,
    reviewed: Mapping[str, Reviewed],
    confirm: bool,
    tube_unknown: bool,
) -> tuple[list[Frame], list[Fault]]:
    """Reads every frame and mask; returns the frames without fault, and the faults of the others.

    Args:
      labels: what a format holds.
      describer: finds gas, pH, class and subject.
      reviewed: frames that a review chose, by the stems of their images.
      confirm: predicted masks that nobody changed count as those of a person.
      tube_unknown: what is background in masks without tube may be tube, `NOT_GAS`.
    """
    frames, faults, first = [], [], {}
    check = functools.partial(
        _check, describer=describer, reviewed=reviewed, confirm=confirm, tube_unknown=tube_unknown
    )
    cv2.setNumThreads(1)  # each thread of the pool decodes an image
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in prefetch_with_bar(pool, check, labels, desc="check", unit="frame"):
            if isinstance(found, list):
                faults += found
                continue
            path, image = found.row["mask_path"], place_of(found.label)
            if first.setdefault(path, image) != image:
                faults.append(Fault("duplicate", image, f"is {path}, and so is {first[path]}"))
            frames.append(found)
    return frames, faults


def _check(label, describer, reviewed, confirm, tube_unknown) -> Frame | list[Fault]:
    known = reviewed.get(label.image.stem)
    described, mask = describer.describe(label, known), None
    faults = described if isinstance(described, list) else []
    place = place_of(label)
    try:
        size, reader = read_labelled(label.image, label.frame_index).shape[:2], label.read_mask
        mask, moved = reader.read() if isinstance(reader, MaskFile) else (reader(), 0)
        if (mask == IGNORE).all():
            faults = [*faults, Fault("mask_values", place, "all of its pixels are 255, unknown: leave the frame out")]
        if mask.shape != size:
            message = f"the frame is {size[1]}x{size[0]}, its mask {mask.shape[1]}x{mask.shape[0]}"
            faults = [*faults, Fault("size", place, message)]
    except (UnreadableFrame, UserError) as error:
        faults = [*faults, Fault(getattr(error, "kind", "unreadable_file"), place, str(error))]
    if faults:
        return faults
    predicted = known is not None and not confirm and mask_digest(mask) == known.mask_digest
    counts = np.bincount(finished_mask(mask, tube_unknown).ravel(), minlength=IGNORE + 1)
    pixels = {name: int(counts[value]) for name, value in VALUES.items()}
    return Frame(label, _row(label, described, PREDICTION if predicted else PERSON), pixels, moved)


def finished_mask(mask: np.ndarray, tube_unknown: bool) -> np.ndarray:
    """Returns a mask as it is stored: where nobody outlined the tube, background may be tube."""
    if tube_unknown and not (mask == TUBE).any():
        return np.where(mask == BACKGROUND, NOT_GAS, mask).astype(np.uint8)
    return mask


def merge(frames: Sequence[Frame], output: Path, *, tube_unknown: bool, replace: bool) -> Imported:
    """Writes images, masks and the table, and merges them with what `output` holds.

    A person's label takes the place of a prediction. A prediction never takes that of a person's label, and neither
    does another person's label, which is a conflict, unless `replace`. The table is written last and whole, so an
    import that is ended early leaves the old one.

    Raises UserError if the table there cannot be read.
    """
    rows = _read_rows(output / TABLE)
    frames_by, conflicts = collections.defaultdict(list), []
    for frame in frames:
        path = frame.row["mask_path"]
        what = _compare(frame, rows.get(path), output, tube_unknown)
        if what == "conflict":
            message = f"{frame.label.image} differs from what a person drew, {output / path}"
            conflicts.append(Fault("conflict", str(frame.label.image), message))
            what = "replaced" if replace else "kept"
        frames_by[what].append(frame)
    todo = frames_by["added"] + frames_by["replaced"]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        write = functools.partial(_write, output=output, tube_unknown=tube_unknown)
        collections.deque(prefetch_with_bar(pool, write, todo, desc="write", unit="frame"), maxlen=0)
    described = 0
    for what, own in frames_by.items():
        for frame in own:
            old = rows.get(frame.row["mask_path"], {})
            new = old | frame.row
            if what in ("unchanged", "kept"):
                # A person may have found a prediction right, and may say more of the frame than before.
                person = what == "kept" or PERSON in (old.get(SOURCE_COLUMN), new[SOURCE_COLUMN])
                new |= {"frame_path": old["frame_path"], SOURCE_COLUMN: PERSON if person else PREDICTION}
                described += any(old.get(name, "") != new[name] for name in _DESCRIPTION)
            rows[frame.row["mask_path"]] = new
    _write_rows(output / TABLE, list(rows.values()))
    return Imported(frames_by, conflicts, described, len(rows))


def summary(imported: Imported, output: Path) -> str:
    """Returns lines that say what was imported, and what became of labels that were there."""
    frames = [frame for found in imported.frames.values() for frame in found]
    count = collections.Counter((frame.row["gas_type"], frame.row["class_name"]) for frame in frames)
    lines = [f"{len(frames)} labelled frames of {len({frame.row['recording_id'] for frame in frames})} recordings:"]
    lines += [f"  {gas} {name:<14}{number:>6}" for (gas, name), number in sorted(count.items())]
    pixels = sum((collections.Counter(frame.pixels) for frame in frames), collections.Counter())
    shares = ", ".join(f"{name} {pixels[name] / pixels.total():.2%}" for name in VALUES if pixels[name])
    lines.append(f"pixels: {shares}; {sum(not frame.pixels['gas'] for frame in frames)} frames without gas")
    if moved := sum(frame.moved for frame in frames):
        lines.append(f"{moved:,} pixels ({moved / pixels.total():.2%}) took the nearest value or colour (--nearest)")
    if predicted := sum(frame.row[SOURCE_COLUMN] == PREDICTION for frame in frames):
        lines.append(
            f"{predicted} masks are predictions that nobody changed, which later labels replace; --confirm takes them "
            "for those of a person"
        )
    if imported.described:
        lines.append(f"{imported.described} frames that were there have another pH, class, subject or split now")
    became = ", ".join(f"{len(imported.frames[what])} {what}" for what in OUTCOMES if imported.frames.get(what))
    return "\n".join([*lines, f"{output / TABLE}: {imported.rows} frames ({became})"])


def _compare(frame, row, output, tube_unknown):
    """Returns what becomes of a frame, see `Imported.frames`, or `conflict`."""
    path = output / frame.row["mask_path"]
    if row is None or not path.is_file():
        return "added"
    try:
        there = read_mask(path)
    except UnreadableFrame as error:
        raise UserError(
            f"{path}, which was imported before, cannot be read: {error}. Remove it to import it."
        ) from error
    if np.array_equal(there, finished_mask(frame.label.read_mask(), tube_unknown)):
        return "unchanged"
    if row.get(SOURCE_COLUMN) == PREDICTION:
        return "replaced"
    return "conflict" if frame.row[SOURCE_COLUMN] == PERSON else "kept"


def _row(label: Label, described: Described, source: str):
    folder = Path(file_name(described.recording))
    name = f"{described.name}_{described.gas}"
    suffix = label.image.suffix.lower() if label.frame_index < 0 else ".png"
    return {
        "frame_path": str(Path("images") / folder / file_name(name, suffix)),
        "mask_path": str(Path("masks") / folder / file_name(name, ".png")),
        "gas_type": described.gas,
        "ph_value": f"{described.ph:g}",
        "class_id": str(described.class_id),
        "class_name": CLASSES[described.class_id],
        "original_sample_id": f"{described.recording}/{described.name}",
        "augmentation_id": "0",
        "recording_id": described.recording,
        "subject_id": described.subject,
        SOURCE_COLUMN: source,
        SPLIT_COLUMN: label.split,
    }


def _write(frame, output, tube_unknown):
    target = output / frame.row["frame_path"]
    if frame.label.frame_index >= 0:
        save(target, read_labelled(frame.label.image, frame.label.frame_index))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, synced=False) as part:
            shutil.copyfile(frame.label.image, part)
    save(output / frame.row["mask_path"], finished_mask(frame.label.read_mask(), tube_unknown))


def _read_rows(path):
    if not path.is_file():
        return {}
    lines = read_table(path, (SINGLE_COLUMNS,), README).lines
    if fault := next((line for line in lines if line.fault), None):
        raise UserError(f"{path} row {fault.number} {fault.fault}. Correct it, or choose another --output.")
    return {line.cells["mask_path"]: line.cells for line in lines}


def _write_rows(path, rows):
    columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows({name: csv_text(text) for name, text in row.items()} for row in rows)
