"""Image files of annotated frames: reads and checks them, and compares them by digests of their pixels."""

import dataclasses
import functools
import hashlib
import os
from pathlib import Path

import numpy as np

from datasets.fume_ogi.annotations import Row
from datasets.fume_ogi.hashing import perceptual_hash
from fume_jax.data.films import read_film_frame, scaled_film
from fume_jax.data.gray import to_gray
from fume_jax.data.images import PALETTE_NOTE, UnreadableFrame, read_frame, read_pixels, read_values
from fume_jax.data.labels.label import Fault, UnusableMask
from fume_jax.data.labels.pixels import SHOWN, lossy_form
from fume_jax.runtime.errors import UserError
from fume_jax.schema import IGNORE, MASK_CLASSES, NOT_GAS

VALUES = (*range(len(MASK_CLASSES)), NOT_GAS, IGNORE)
# Greys that no palette shows on purpose, so they are values of a mask.
_VALUES_ONLY = {1, 2, NOT_GAS}


@dataclasses.dataclass(frozen=True)
class Content:
    """Size in pixels, digests and look of a frame and its mask, and what the mask holds."""

    height: int
    width: int
    frame_digest: str
    mask_digest: str
    frame_hash: str  # perceptual hash
    class_pixels: tuple[int, ...]  # number of pixels of each of MASK_CLASSES
    not_gas_pixels: int
    ignored_pixels: int
    colors: tuple[tuple[int, tuple[int, ...]], ...]  # classes and their RGB colours, of a mask with a palette
    note: str  # what the user should know of the file of the frame, "" if nothing

    @property
    def value_pixels(self) -> dict[int, int]:
        """Number of pixels of each value of the mask."""
        return dict(zip(VALUES, (*self.class_pixels, self.not_gas_pixels, self.ignored_pixels), strict=True))


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask, uint8 [H, W] of indices into MASK_CLASSES, `NOT_GAS` and `IGNORE`, upright as its EXIF data say.

    The values are grey levels of any depth, three equal channels, or a palette: its indices, or its colours if these
    are the grey levels 0, 1 and 2, or 254 and 255 besides, as programs that make files smaller leave them.

    Raises UnusableMask if the pixels are no such values or all are IGNORE, and UnreadableFrame as `read_pixels` does.
    """
    return _read_mask(path)[0]


def check_content(source: Path, row: Row) -> tuple[list[Content | None], list[Fault]]:
    """Reads the files of a row; returns the content of each frame, None if it cannot be read, and the faults."""
    contents, faults = zip(*(_check(source, frame) for frame in row.frames), strict=True)
    return list(contents), [Fault(kind, row.place, message) for found in faults for kind, message in found]


def _check(source, frame):
    images, faults = [], []
    readers = (
        (source / frame.frame_path, functools.partial(_read_noted, source, frame)),
        (source / frame.mask_path, functools.partial(_read_mask, source / frame.mask_path)),
    )
    for path, read in readers:
        if not os.path.exists(path):
            faults.append(("missing_file", f"there is no {path}"))
            continue
        try:
            images.append(read())
        except (UnreadableFrame, UserError) as error:
            faults.append((getattr(error, "kind", "unreadable_file"), f"{path}: {error}"))
    if faults:
        return None, faults
    (pixels, note), (mask, colors) = images
    (height, width), mask_size = pixels.shape[:2], mask.shape
    if mask_size != (height, width):
        faults.append(("size", f"{frame.frame_path} is {width}x{height}, its mask {mask_size[1]}x{mask_size[0]}"))
    *classes, not_gas, ignored = np.bincount(mask.ravel(), minlength=max(VALUES) + 1)[list(VALUES)].tolist()
    content = Content(
        height=height,
        width=width,
        frame_digest=digest(pixels),
        mask_digest=digest(mask),
        frame_hash=perceptual_hash(pixels),
        class_pixels=tuple(classes),
        not_gas_pixels=not_gas,
        ignored_pixels=ignored,
        colors=colors,
        note=note,
    )
    return content, faults


def digest(pixels: np.ndarray) -> str:
    """Returns a digest of the values and the shape of a frame or a mask, uint8."""
    return hashlib.blake2b(pixels.tobytes() + repr(pixels.shape).encode(), digest_size=16).hexdigest()


def read_labelled(path: Path, frame_index: int) -> np.ndarray:
    """Reads a frame, uint8 [H, W, 1]: an image if the index is -1, else one of a film by the scale of the film.

    Raises UnreadableFrame, or UserError if the file is no film although the frame has a position in one.
    """
    return read_frame(path) if frame_index < 0 else read_film_frame(str(path), frame_index)


def _read_noted(source, frame):
    """Returns a frame as `read_labelled` does, and what the user should know of its file."""
    path = source / frame.frame_path
    if frame.frame_index < 0:
        values, _, note = read_values(path)
        return to_gray(values), note
    pixels = read_labelled(path, frame.frame_index)
    return pixels, PALETTE_NOTE if PALETTE_NOTE in scaled_film(str(path))[0].notes else ""


def _read_mask(path):
    """Returns the classes of a mask, and the colours of those that its palette has."""
    pixels = read_pixels(path)
    if lossy := lossy_form(path, pixels.format):
        raise UnusableMask("mask_form", f"{lossy}, which changes values; expected PNG or another lossless format")
    values, colors = pixels.values, ()
    if pixels.palette is not None:
        values, colors = _of_palette(values, pixels.palette)
    elif values.ndim == 3:
        values = _of_channels(values)
    if not np.isin(values, VALUES).all():
        found = np.unique(values)  # NaN is the last one
        found = [*found[: SHOWN - 1], found[-1]] if len(found) > SHOWN else found
        raise UnusableMask("mask_values", f"holds {', '.join(f'{value:.7g}' for value in found)}")
    if (values == IGNORE).all():
        raise UnusableMask("mask_values", f"holds {IGNORE} alone, of which nothing can be learnt")
    return values.astype(np.uint8), colors


def _of_palette(indices, palette):
    """Returns the classes of a mask with a palette, and their colours; the colours are () if they are the classes."""
    used = np.flatnonzero(np.bincount(indices.ravel()))
    colors = palette[used].astype(int)
    if (colors == colors[:, :1]).all():
        levels = colors[:, 0]
        kinds = set(levels.tolist())
        are_values = kinds <= set(VALUES) and (levels.max() < len(MASK_CLASSES) or bool(kinds & _VALUES_ONLY))
        # Grey levels that do not rise with the index may come from a grey mask whose palette was sorted anew.
        if len(kinds) < len(levels) or (not are_values and (np.diff(levels) < 0).any()):
            greys = ", ".join(f"{index} is {level}" for index, level in zip(used, levels, strict=True))
            raise UnusableMask("mask_form", f"a palette of greys in another order than its indices: {greys}")
        if are_values:
            return palette[..., 0][indices], ()
    return indices, tuple((index, tuple(color)) for index, color in zip(used.tolist(), colors.tolist(), strict=True))


def _of_channels(values):
    """Returns the grey levels of an image of two, three or four channels."""
    if values.shape[2] in (2, 4):
        if np.ptp(values[..., -1]):
            raise UnusableMask(
                "mask_form", "partly transparent; save it without an alpha channel, as grey levels of 0, 1 and 2"
            )
        values = values[..., :-1]
    if (values != values[..., :1]).any():
        raise UnusableMask("mask_form", "a colour image; expected one channel of 0, 1 and 2")
    return values[..., 0]
