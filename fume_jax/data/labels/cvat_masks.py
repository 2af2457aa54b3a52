"""Labels of CVAT as "Segmentation mask 1.1": images in the colours of `labelmap.txt`."""

import functools
from pathlib import Path

import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.images import read_pixels
from fume_jax.data.labels.label import UnusableMask
from fume_jax.data.labels.reading import Reading, find_image, folder_of, split_of

# Strange colours that a message lists.
_SHOWN = 6


def read_folder(reading: Reading, folder: Path) -> None:
    """Reads the masks in `SegmentationClass/` of a folder.

    `labelmap.txt` has a line `name:red,green,blue:parts:actions` for each label; of grey masks, the values are the
    numbers of the lines, from 0. Images are in `JPEGImages/`, in the folder or above it. The text files in
    `ImageSets/Segmentation/` are subsets, which may be splits; images that are listed and have no mask are not
    labelled, and left out.
    """
    meanings = _read_labelmap(reading, folder / "labelmap.txt")
    if meanings is None:
        return
    masks = {path.relative_to(folder / "SegmentationClass"): path for path in folder.glob("SegmentationClass/**/*.png")}
    subsets = _read_subsets(folder)
    if bare := subsets.keys() - {path.with_suffix("").as_posix() for path in masks}:
        reading.note("images of ImageSets without a mask, which are not labelled and left out", len(bare))
    for path, mask in sorted(masks.items()):
        name, bases = path.with_suffix("").as_posix(), (folder, folder.parent)
        if (image := find_image(name, bases)) is None:
            reading.missing(name, reading.place(mask), bases)
            continue
        stated = reading.size(mask, reading.place(mask), None)
        if stated and reading.size(image, reading.place(mask), stated):
            split = split_of(subsets.get(name, ""))
            read_mask = functools.partial(_read_mask, mask, *meanings)
            reading.add(image, -1, image.stem, folder_of(name), split, read_mask)


def _read_labelmap(reading, path):
    """Returns values of masks by colour and by number of the line, None if the file is at fault."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reading.fault("layout", path, f"cannot be read ({error}); it says which colour each label has")
        return None
    colors, numbers, sound = {}, [], True
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *fields = line.split(":")
        color = tuple(int(part) for part in fields[0].split(",") if part.strip().isdecimal()) if fields else ()
        place = f"{reading.place(path)}, line {number}"
        if len(color) != 3 or max(color) > 255 or color in colors:
            reading.fault("layout", place, "expected a line name:red,green,blue:: with a colour of its own")
            sound = False
            continue
        numbers.append(reading.value(name, place))
        colors[color] = numbers[-1]
    return (colors, numbers) if sound and None not in numbers else None


def _read_subsets(folder):
    """Returns the subsets, or splits, by the names of images without suffix."""
    found = {}
    for path in sorted(folder.glob("ImageSets/Segmentation/*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found |= {line.strip(): path.stem for line in lines if line.strip()}
    return found


def _read_mask(path, colors, numbers):
    """Reads a mask, uint8 [H, W]; UnusableMask if it holds other colours than those of `labelmap.txt`."""
    try:
        pixels = read_pixels(path)
    except UnreadableFrame as error:
        raise UnusableMask("unreadable_file", str(error)) from error
    values = pixels.values if pixels.palette is None else pixels.palette[pixels.values]
    if values.dtype != np.uint8 or (values.ndim == 3 and values.shape[2] != 3):
        raise UnusableMask("mask_form", f"{path} is no image in grey or RGB of 8 bits; expected one as CVAT writes it")
    if values.ndim == 2:
        keys, known = values, dict(enumerate(numbers))
    else:
        keys = values.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        known = {red << 16 | green << 8 | blue: value for (red, green, blue), value in colors.items()}
    found, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if strange := [(int(key), int(count)) for key, count in zip(found, counts, strict=True) if int(key) not in known]:
        form = str if values.ndim == 2 else "#{:06x}".format
        listed = ", ".join(f"{form(key)} ({count:,} pixels)" for key, count in strange[:_SHOWN])
        raise UnusableMask("mask_values", f"{path} holds {listed}; labelmap.txt does not list them")
    table = np.array([known[int(key)] for key in found], np.uint8)
    return table[inverse].reshape(keys.shape)
