"""Reads and checks labelled frames, and describes them as rows of this dataset."""

import concurrent.futures
import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from datasets.fume_ogi.annotations import LABEL_SOURCES, SINGLE_COLUMNS, SOURCE_COLUMN, SPLIT_COLUMN
from datasets.fume_ogi.content import digest, read_labelled
from datasets.fume_ogi.recordings import Described, Describer
from datasets.paired_frames import prefetch_with_bar
from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.labels.collector import SIZE_REMEDY
from fume_jax.data.labels.label import VALUES, Fault, Label, path_below, place_of
from fume_jax.data.labels.manifest import Reviewed, mask_digest
from fume_jax.data.labels.pixels import MaskFile
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.names import file_name
from fume_jax.schema import BACKGROUND, CLASSES, IGNORE, NOT_GAS, TUBE

COLUMNS = (*SINGLE_COLUMNS, "recording_id", "subject_id", SOURCE_COLUMN, SPLIT_COLUMN)
PERSON, PREDICTION = LABEL_SOURCES


@dataclasses.dataclass(frozen=True)
class Frame:
    """A labelled frame that has been read and checked; `row` is that of the table."""

    label: Label
    place: str  # for messages
    digest: str  # of the pixels of the frame
    row: dict[str, str]
    pixels: dict[str, int]  # by the names in VALUES
    moved: int  # number of pixels of a mask image that took the nearest value


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
            path, image = found.row["mask_path"], found.place
            if first.setdefault(path, image) != image:
                faults.append(Fault("duplicate", image, f"is {path}, and so is {first[path]}"))
            frames.append(found)
    return frames, faults


def _check(label, describer, reviewed, confirm, tube_unknown) -> Frame | list[Fault]:
    known = reviewed.get(label.image.stem)
    described, reader = describer.describe(label, known), label.read_mask
    place, is_file = place_of(label, describer.source), isinstance(reader, MaskFile)
    of_mask = path_below(reader.path, describer.source) if is_file else place
    picture, frame_faults = _attempt(lambda: read_labelled(label.image, label.frame_index), place)
    masked, mask_faults = _attempt(reader.read if is_file else lambda: (reader(), 0), of_mask)
    faults = [*(described if isinstance(described, list) else []), *frame_faults, *mask_faults]
    if masked is not None and (masked[0] == IGNORE).all():
        faults.append(Fault("mask_values", of_mask, "all of its pixels are 255, unknown: leave the frame out"))
    if picture is not None and masked is not None and masked[0].shape != (size := picture.shape[:2]):
        message = f"its mask is {masked[0].shape[1]}x{masked[0].shape[0]}, the frame {size[1]}x{size[0]}; {SIZE_REMEDY}"
        faults.append(Fault("size", of_mask, message))
    if faults:
        return faults
    mask, moved = masked
    predicted = known is not None and not confirm and mask_digest(mask) == known.mask_digest
    counts = np.bincount(finished_mask(mask, tube_unknown).ravel(), minlength=IGNORE + 1)
    pixels = {name: int(counts[value]) for name, value in VALUES.items()}
    row = _row(label, described, PREDICTION if predicted else PERSON)
    return Frame(label, place, digest(picture), row, pixels, moved)


def _attempt(read: Callable, place: str):
    """Returns what is read and no fault, or None and the fault."""
    try:
        return read(), []
    except (UnreadableFrame, UserError) as error:
        return None, [Fault(getattr(error, "kind", "unreadable_file"), place, str(error))]


def finished_mask(mask: np.ndarray, tube_unknown: bool) -> np.ndarray:
    """Returns a mask as it is stored: where nobody outlined the tube, background may be tube."""
    if tube_unknown and not (mask == TUBE).any():
        return np.where(mask == BACKGROUND, NOT_GAS, mask).astype(np.uint8)
    return mask


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
