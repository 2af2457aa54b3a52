"""Writes the frames of a review: pictures, their masks for a tool that edits them, a manifest and a contact sheet.

| path | content |
| --- | --- |
| `images/RECORDING/RECORDING_FRAME_GAS.png` | the grey levels that the model saw |
| the same, `.json` | LabelMe |
| `annotations.xml`, `images.zip` | CVAT for images 1.1, and the pictures as CVAT takes them |
| `annotations/instances_review.json` | COCO |
| `review.csv` | a row for each frame; see `fume_jax.data.labels.manifest` |
| `contact_sheet.jpg` | the frames with their masks, and the highest score of each |
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fume_jax.data.labels.manifest import MANIFEST, SHEET, Reviewed, write_manifest
from fume_jax.evaluation import overlays
from fume_jax.inference.review_scores import Candidate, SelectedFrames
from fume_jax.inference.settings import open_predicted
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replacing
from fume_jax.runtime.names import file_name, portable, printable

IMAGES = "images"
# Width and height of a tile of the contact sheet, in pixels.
TILE = (320, 240)


class Chosen(NamedTuple):
    """A frame of one gas that was chosen, its row of the manifest, and its highest score in ranks."""

    candidate: Candidate
    row: Reviewed
    reason: str


def image_name(candidate: Candidate) -> str:
    """Names the picture of a frame, relative to `images`: unique, also without its folder."""
    recording, frame = portable(candidate.recording.name), portable(candidate.frame)
    return f"{file_name(recording)}/{file_name(f'{recording}_{frame}', f'_{candidate.gas}.png')}"


def check_empty(folder: Path) -> None:
    """Raises UserError if a folder holds anything but a lock: it may be a review that somebody has corrected."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {".lock"}:
        raise UserError(f"--output={folder} is not empty, and masks in it may be corrected ones. Name a new folder.")


def write_review(folder: Path, chosen: Sequence[Chosen], to: str, exact: bool) -> int:
    """Writes the review, the manifest last; returns the number of frames and by-products that are missing.

    Raises UserError if no frame can be read any more.
    """
    by_products, tiles, left_out = ByProducts(), {}, 0
    for recording in dict.fromkeys(candidate.recording for candidate, *_ in chosen):
        own = [frame for frame in chosen if frame.candidate.recording is recording]
        try:
            left_out += _write_images(folder / IMAGES, own, tiles)
        except UserError as error:
            print(f"left out: {printable(recording.name)}: {error}", flush=True)
            left_out += len(own)
    kept = [frame for frame in chosen if frame.row.image in tiles]
    if not kept:
        raise UserError("None of the chosen frames can be read any more.")
    WRITERS[to](folder, ((row.image, candidate.read_mask()) for candidate, row, _ in kept), exact)
    with by_products.attempt(SHEET):
        overlays.save(folder / SHEET, overlays.contact_sheet([tiles[row.image] for _, row, _ in kept], TILE))
    write_manifest(folder / MANIFEST, [row for _, row, _ in kept])
    print(f"{folder} holds {len(kept):,} frames for {to}; {SHEET} shows them", flush=True)
    return left_out + by_products.failures.total()


def _write_images(folder, chosen, tiles):
    """Writes the pictures of a recording's frames and adds their tiles, by name; returns how many were left out."""
    frames = SelectedFrames(open_predicted(chosen[0].candidate.recording.settings), {row.frame for _, row, _ in chosen})
    for pair, loaded in frames:
        for candidate, row, reason in chosen:
            if row.frame == printable(pair.name) and row.gas in loaded.frames:
                frame = loaded.frames[row.gas][..., 0]
                overlays.save(folder / row.image, frame)
                tiles[row.image] = (
                    overlays.fit(overlays.overlay(frame, candidate.read_mask(), row.gas), TILE),
                    (
                        f"{printable(row.recording)} {row.frame if row.time is None else f'{row.time:.2f} s'}",
                        f"{row.gas.upper()} {reason} {getattr(row, reason):.2f}",
                    ),
                )
    return frames.left_out


def _write_labelme(folder, masks, exact):
    from fume_jax.data.labels import labelme

    for name, mask in masks:
        image = folder / IMAGES / name
        labelme.write(image.with_suffix(".json"), image.name, mask, exact=exact)


def _write_cvat(folder, masks, exact):
    from fume_jax.data.labels import cvat

    cvat.write(folder / "annotations.xml", masks)
    with replacing(folder / f"{IMAGES}.zip") as part, zipfile.ZipFile(part, "w") as file:
        for image in sorted((folder / IMAGES).rglob("*.png")):
            file.write(image, image.relative_to(folder / IMAGES))


def _write_coco(folder, masks, exact):
    from fume_jax.data.labels import coco

    path = folder / "annotations" / "instances_review.json"
    path.parent.mkdir(exist_ok=True)
    coco.write(path, masks)


# Functions by tool, of the folder, the names of the pictures with their masks, and whether outlines are exact; only
# LabelMe knows others, polygons.
WRITERS = {"labelme": _write_labelme, "cvat": _write_cvat, "coco": _write_coco}
