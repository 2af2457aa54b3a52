"""What the image files of a row hold: read, checked and told apart by their pixels."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from datasets.fume_ogi.annotations import Frame, Row
from datasets.fume_ogi.faults import Fault
from fume_jax.data.images import read_frame
from fume_jax.data.sources import UnreadableFrame
from fume_jax.schema import MASK_CLASSES


@dataclasses.dataclass(frozen=True)
class Content:
    """Size and fingerprints of a frame and its mask."""

    height: int
    width: int
    frame_digest: str
    mask_digest: str


def read_mask(path: Path) -> np.ndarray:
    """Reads a mask as it is stored, uint8 [H, W]: grey levels, indices of a palette, or three equal channels.

    Raises:
      UnreadableFrame: if the file is missing, empty or no image, or has channels that differ.
    """
    try:
        with Image.open(path) as image:
            mask = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        raise UnreadableFrame("not an image, or a damaged one") from error
    if mask.ndim == 3:
        if (mask[..., :1] != mask[..., :3]).any():
            raise UnreadableFrame("a colour image; expected one channel of 0, 1 and 2")
        mask = mask[..., 0]
    # Values beyond 8 bits stay wrong instead of wrapping round to right ones.
    return np.clip(mask, 0, 255).astype(np.uint8)


def check_content(source: Path, row: Row) -> tuple[list[Content], list[Fault]]:
    """Reads the files of a row: what they hold, in the order of its frames, or what is wrong with them."""
    contents, faults = [], []
    for frame in row.frames:
        content, messages = _check(source, frame)
        contents.append(content)
        faults += [Fault(kind, row.place, message) for kind, message in messages]
    return contents, faults


def _check(source: Path, frame: Frame):
    images, messages = [], []
    for path, read in ((frame.frame_path, read_frame), (frame.mask_path, read_mask)):
        if not (source / path).is_file():
            messages.append(("missing_file", f"there is no {source / path}"))
            continue
        try:
            images.append(read(source / path))
        except UnreadableFrame as error:
            messages.append(("unreadable_file", f"{source / path}: {error}"))
    if messages:
        return None, messages
    pixels, mask = images
    if pixels.shape[:2] != mask.shape:
        sizes = f"{pixels.shape[1]}x{pixels.shape[0]}, its mask {mask.shape[1]}x{mask.shape[0]}"
        messages.append(("size", f"{frame.frame_path} is {sizes}"))
    values = np.unique(mask)
    if values[-1] >= len(MASK_CLASSES):
        messages.append(("mask_values", f"{frame.mask_path} holds {', '.join(map(str, values))}"))
    return Content(*pixels.shape[:2], _digest(pixels), _digest(mask)), messages


def _digest(pixels):
    return hashlib.blake2b(pixels.tobytes() + repr(pixels.shape).encode(), digest_size=16).hexdigest()
