"""Writes labelled frames in the layout of this dataset, and merges them with those that are there."""

import collections
import concurrent.futures
import csv
import dataclasses
import functools
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.fume_ogi.annotations import INDEX_COLUMN, README, SINGLE_COLUMNS, SOURCE_COLUMN, SPLIT_COLUMN, TABLE
from datasets.fume_ogi.content import digest, read_labelled, read_mask
from datasets.fume_ogi.importing import COLUMNS, PERSON, PREDICTION, Frame, finished_mask
from datasets.paired_frames import prefetch_with_bar
from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.labels.label import VALUES, Fault
from fume_jax.data.table import as_number, read_table
from fume_jax.evaluation.overlays import save
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing
from fume_jax.runtime.names import csv_text

# What a later import of the same frame may say otherwise.
_DESCRIPTION = ("ph_value", "class_id", "subject_id", SPLIT_COLUMN)
# What becomes of a frame: `kept` means that the label that is there was kept.
OUTCOMES = ("added", "replaced", "unchanged", "kept")


@dataclasses.dataclass(frozen=True)
class Stored:
    """What was imported before: rows of the table, and digests of the frames that can be read, by their masks."""

    folder: Path
    rows: Mapping[str, Mapping[str, str]]
    digests: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import did: frames by what became of them, and conflicts with labels that are there."""

    frames: Mapping[str, Sequence[Frame]]  # by OUTCOMES
    conflicts: Sequence[Fault]
    described: int  # number of rows that were there and have another pH, class, subject or split now
    rows: Sequence[Mapping[str, str]]  # of the table
    absent: int  # number of rows of the same recordings that were there, and whose frames are not imported now


def read_stored(output: Path) -> Stored:
    """Reads what an earlier import left, if anything; UserError if its table cannot be read."""
    rows = {}
    if (path := output / TABLE).is_file():
        lines = read_table(path, (SINGLE_COLUMNS,), README).lines
        if fault := next((line for line in lines if line.fault), None):
            raise UserError(f"{path} row {fault.number} {fault.fault}. Correct it, or choose another --output.")
        rows = {line.cells["mask_path"]: line.cells for line in lines}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        read = functools.partial(_stored_digest, output)
        found = list(prefetch_with_bar(pool, read, list(rows.values()), desc="compare", unit="frame"))
    return Stored(output, rows, {path: text for path, text in zip(rows, found, strict=True) if text})


def compare(
    frames: Sequence[Frame], stored: Stored, *, tube_unknown: bool
) -> tuple[list[tuple[Frame, str]], list[Fault]]:
    """Returns what becomes of each frame, one of OUTCOMES or `conflict`, and faults of names that are taken.

    A person's label takes the place of a prediction. A prediction never takes that of a person's label, and neither
    does another person's label, which is a conflict. Raises UserError if a file that is there cannot be read.
    """
    outcomes, faults = [], []
    for frame in frames:
        row = stored.rows.get(frame.row["mask_path"])
        paths = [stored.folder / row[name] for name in ("frame_path", "mask_path")] if row else []
        if row is None or not all(path.is_file() for path in paths):
            outcomes.append((frame, "added"))
        elif (there := stored.digests.get(row["mask_path"])) and there != frame.digest:
            remedy = "put recordings in folders of their own, or choose another --output"
            message = f"another frame of that name is there, {row['frame_path']}: {remedy}"
            faults.append(Fault("other_frame", frame.place, message))
        else:
            mask = _read_again(read_mask, paths[1])
            if there is None:
                _read_again(functools.partial(read_labelled, frame_index=_index(row)), paths[0])
            outcomes.append((frame, _compare(frame, row, mask, tube_unknown)))
    return outcomes, faults


def merge(outcomes: Sequence[tuple[Frame, str]], stored: Stored, *, tube_unknown: bool, replace: bool) -> Imported:
    """Writes images, masks and the table as `compare` says; a conflict keeps what is there, unless `replace`.

    The table is written last and whole, so an import that is ended early leaves the old one.
    """
    output, rows, described = stored.folder, dict(stored.rows), 0
    frames_by, conflicts = collections.defaultdict(list), []
    for frame, what in outcomes:
        if what == "conflict" and not replace:
            message = f"differs from {frame.row['mask_path']}, which a person drew"
            conflicts.append(Fault("conflict", frame.place, message))
        frames_by[("replaced" if replace else "kept") if what == "conflict" else what].append(frame)
    todo = [(frame, what == "added") for what in ("added", "replaced") for frame in frames_by[what]]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        write = functools.partial(_write, output=output, tube_unknown=tube_unknown)
        collections.deque(prefetch_with_bar(pool, write, todo, desc="write", unit="frame"), maxlen=0)
    for what, own in frames_by.items():
        for frame in own:
            old = rows.get(frame.row["mask_path"], {})
            new = old | frame.row
            if what != "added":
                new["frame_path"] = old["frame_path"]
                described += any(old.get(name, "") != new[name] for name in _DESCRIPTION)
            if what in ("unchanged", "kept"):
                # A person may have found a prediction right, and may say more of the frame than before.
                person = what == "kept" or PERSON in (old.get(SOURCE_COLUMN), new[SOURCE_COLUMN])
                new[SOURCE_COLUMN] = PERSON if person else PREDICTION
            rows[frame.row["mask_path"]] = new
    _write_rows(output / TABLE, list(rows.values()))
    absent = _count_absent([frame for frame, _ in outcomes], stored)
    return Imported(frames_by, conflicts, described, list(rows.values()), absent)


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
    return "\n".join([*lines, f"{output / TABLE}: {len(imported.rows)} frames ({became})"])


def next_command(output: Path) -> str:
    """Returns how to go on, as it works in the current folder; the command is a module of the checkout."""
    checkout = Path(__file__).resolve().parents[2]
    here = Path.cwd().resolve() == checkout
    where = "" if here else f" in {checkout}"
    source = shlex.quote(str(output if here else output.resolve()))
    name = re.sub(r"\W", "_", output.resolve().name)
    return f"Prepare them{where} with\n  python -m datasets.fume_ogi --source={source} --data_dir=data --name={name}"


def _stored_digest(output, row):
    """Returns the digest of a frame that is there; "" if it cannot be read."""
    try:
        return digest(read_labelled(output / row["frame_path"], _index(row)))
    except (OSError, UnreadableFrame, UserError):
        return ""


def _index(row):
    """Returns the position of a frame in its film, -1 if the file is the frame."""
    position = as_number(row.get(INDEX_COLUMN, ""))
    return int(position) if position >= 0 else -1


def _read_again(read, path):
    try:
        return read(path)
    except (UnreadableFrame, UserError) as error:
        raise UserError(
            f"{path}, which was imported before, cannot be read: {error}. Remove it to import it."
        ) from error


def _compare(frame, row, there, tube_unknown):
    if np.array_equal(there, finished_mask(frame.label.read_mask(), tube_unknown)):
        return "unchanged"
    if row.get(SOURCE_COLUMN) == PREDICTION:
        return "replaced"
    return "conflict" if frame.row[SOURCE_COLUMN] == PERSON else "kept"


def _write(frame_and_image, output, tube_unknown):
    """Writes the mask of a frame, and its image if it is not there."""
    frame, with_image = frame_and_image
    target = output / frame.row["frame_path"]
    if with_image and frame.label.frame_index >= 0:
        save(target, read_labelled(frame.label.image, frame.label.frame_index))
    elif with_image:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, synced=False) as part:
            shutil.copyfile(frame.label.image, part)
    save(output / frame.row["mask_path"], finished_mask(frame.label.read_mask(), tube_unknown))


def _count_absent(frames, stored):
    paths = {frame.row["mask_path"] for frame in frames}
    films = {(frame.row["recording_id"], frame.row["gas_type"]) for frame in frames}
    others = (row for path, row in stored.rows.items() if path not in paths)
    return sum((row.get("recording_id", ""), row["gas_type"].lower()) in films for row in others)


def _write_rows(path, rows):
    columns = list(dict.fromkeys([*COLUMNS, *(name for row in rows for name in row)]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="")
        table.writeheader()
        table.writerows({name: csv_text(text) for name, text in row.items()} for row in rows)
