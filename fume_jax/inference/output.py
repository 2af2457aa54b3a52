"""Writes the results of a prediction to a folder: tables first, and by-products that may fail."""

import contextlib
import csv
import fnmatch
import glob
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fume_jax.data.video import VideoWriter
from fume_jax.evaluation import overlays
from fume_jax.inference.card import ModelCard
from fume_jax.learning.probabilities import softmax
from fume_jax.runtime import files
from fume_jax.runtime.byproducts import ByProducts, reason
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.names import csv_text, file_name
from fume_jax.schema import CLASSES, MASK_CLASSES

# Files to write besides the tables and the timeline, and those that are written unless others are named; the video only
# for videos.
PRODUCTS = ("masks", "overlays", "video", "probabilities")
USUAL = ("masks", "overlays", "video")
# Bytes that are put by for a row of each table, more than it takes.
ROW_BYTES = 1000
# How tables say whether the model abstains.
ABSTAINS = {True: "yes", False: "no", None: None}
# Width and height of a panel of the annotated video, in pixels.
PANEL = (640, 480)


@contextlib.contextmanager
def output_folder(output: str, frames: Iterable[str | None]) -> Iterator[None]:
    """Creates and locks the folder for the prediction of `frames`, the paths that the user gave.

    Raises UserError if it is no folder, cannot be written, is in use by another process, or lies where the same command
    would take what it wrote for frames the next time.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output={output} is a file already; name a folder.")
    for path in frames:
        if path is not None and _is_read(folder.resolve(), Path(path)):
            raise UserError(
                f"--output={output} lies among the frames of {path}, and masks would be taken for frames the next "
                "time. Choose a folder elsewhere."
            )
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(files.lock(folder, doing="predicting into", flag="--output"))
            for product in PRODUCTS:
                files.remove_parts(folder / product)
        except OSError as error:
            raise UserError(f"--output={output} cannot be written: {reason(error)}. Choose another folder.") from error
        yield


def _is_read(folder, frames):
    """Whether `frames`, a folder or a pattern, covers what is written to a folder."""
    if frames.is_dir():
        return folder.is_relative_to(frames.resolve())
    if frames.is_file():
        return False
    if "**" in frames.parts:
        root = next(parent for parent in frames.parents if not glob.has_magic(str(parent)))
        return folder.is_relative_to(root.resolve())
    written = (folder, *(folder / product for product in PRODUCTS))
    return any(fnmatch.fnmatchcase(str(path), str(frames.parent.absolute())) for path in written)


class _NoRecords(Exception):
    """Has tables without a record vanish."""


@contextlib.contextmanager
def tables(folder: Path, rows: int | None = None) -> Iterator[Callable[[dict], None]]:
    """Yields a function that adds a record to the tables; complete ones replace earlier ones, if there is a record.

    Room on the disk for `rows` records, if their number is known, is taken before anything else can fill it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    with contextlib.suppress(_NoRecords), contextlib.ExitStack() as stack:
        parts = [stack.enter_context(files.replacing(folder / f"predictions.{ending}")) for ending in ("csv", "jsonl")]
        table, lines = (stack.enter_context(part.open("w", newline="", encoding="utf-8")) for part in parts)
        for file in (table, lines):
            if rows and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, rows * ROW_BYTES)
                stack.callback(file.truncate)  # to what was written

        def record(values):
            nonlocal written
            if not written:
                csv.writer(table).writerow(values)
            cells = [csv_text(value) if isinstance(value, str) else value for value in values.values()]
            csv.writer(table).writerow(cells)
            lines.write(json.dumps(values) + "\n")
            written += 1

        yield record
        if not written:
            raise _NoRecords


class AnnotatedVideo:
    """Writes the annotated video, a by-product; a context manager. A failure is told at the end."""

    def __init__(self, folder: Path, rate: float, by_products: ByProducts):
        self._writer, self._by_products, self._failure = VideoWriter(folder / "annotated.mp4", rate), by_products, None

    def write(self, picture: np.ndarray, seconds: float) -> None:
        """Adds a picture as `VideoWriter.write` does; nothing more after a failure."""
        if self._failure is None:
            try:
                self._writer.write(picture, seconds)
            except Exception as error:  # of any type: whatever FFmpeg reports
                self._failure = error

    def __enter__(self) -> "AnnotatedVideo":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        told = self._by_products.attempt("annotated.mp4") if error is None else contextlib.suppress(Exception)
        with told, self._writer:  # closes the file, or removes it after an error
            if failure := error or self._failure:
                raise failure


def write_pictures(
    result, *, folder: Path, card: ModelCard, products: Sequence[str], film: Sequence[str], by_products: ByProducts
) -> np.ndarray | None:
    """Writes the files of masks, overlays and probabilities of a `PredictedPair`.

    Returns its picture for the annotated video, with a panel for each gas of `film`; None if that is empty or fails.
    """
    prediction = result.prediction
    for gas, mask in prediction.masks.items():
        name = f"{result.name}_{gas}"
        if "masks" in products:
            with by_products.attempt("masks", f"masks/{name}"):
                overlays.save(folder / "masks" / file_name(result.name, f"_{gas}.png"), mask)
        if "overlays" in products:
            with by_products.attempt("overlays", f"overlays/{name}"):
                overlay = overlays.overlay(result.frames[gas][..., 0], mask, gas)
                overlays.save(folder / "overlays" / file_name(result.name, f"_{gas}.png"), overlay)
        if "probabilities" in products:
            with by_products.attempt("probabilities", f"probabilities/{name}"):
                path = folder / "probabilities" / file_name(result.name, f"_{gas}.npz")
                save_probabilities(path, result.logits[f"{gas}_seg_logits"])
    if film:
        with by_products.attempt("annotated.mp4", f"a picture of annotated.mp4, {result.name},"):
            caption = f"{result.time:.2f} s"
            if prediction.label:
                caption = f"{prediction.label} {prediction.probabilities[prediction.label]:.2f}   {caption}"
            bars = by_class(prediction.probabilities) if card.classifies else None
            return overlays.annotated_pair(result.frames, prediction.masks, caption, bars, gases=film, size=PANEL)
    return None


def save_probabilities(path: Path, logits: np.ndarray) -> None:
    """Writes the probabilities of the mask classes, the softmax of `logits` [H, W, 3], to a compressed `.npz` file.

    Its arrays, float16 [H, W], are named by `MASK_CLASSES`, and have the size of the model: to enlarge them is for the
    reader, and adds nothing.
    """
    planes = np.moveaxis(softmax(logits.astype(np.float32)), -1, 0).astype(np.float16)
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path, synced=False) as part, part.open("wb") as file:
        np.savez_compressed(file, **dict(zip(MASK_CLASSES, planes, strict=True)))


def by_class(probabilities: Mapping[str, float]) -> list[float]:
    """Returns probabilities in the order of `CLASSES`, NaN where there is none."""
    return [probabilities.get(name, np.nan) for name in CLASSES]
