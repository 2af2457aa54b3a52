"""Outlines and masks in the layouts of Ultralytics.

Outlines: https://docs.ultralytics.com/datasets/segment, masks: https://docs.ultralytics.com/datasets/semantic.
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import list_files
from fume_jax.data.labels.label import Labels, Meaning
from fume_jax.data.labels.pairing import pair
from fume_jax.data.labels.shapes import OUTLINE, Layer, from_polygons, paint
from fume_jax.data.labels.yolo_description import read_description
from fume_jax.schema import IGNORE

OUTLINES, OUTLINE_SUFFIXES = "labels", (".txt",)
# The folder of masks, if the description does not name it.
MASKS, MASK_SUFFIXES = "masks", (".png", ".bmp", ".tif", ".tiff")


def read(source: Path, meaning: Meaning) -> Labels:
    """Reads the labels of a data set that a YAML file describes; `source` is that file or its folder.

    Of `images/.../NAME.jpg` the outlines are in `labels/.../NAME.txt`, or, if the description has `masks_dir` or there
    are masks and no outlines, the mask is in `masks/.../NAME.png`. Its values are the indices of `names` and 255 for
    pixels to ignore; those that the user lists count more. The folders below that of a split name the recording.

    A pixel is of a class if its centre is inside the outline. Smaller outlines lie over larger ones, as in the training
    of Ultralytics (`polygons2masks_overlap`). An image with an empty file, or none, is all background, as there.
    """
    collector = Collector(source, meaning)
    if description := read_description(collector):
        paths = [image.path for image in description.images]
        masks_dir = description.masks_dir
        if not masks_dir and not any(_beside(path, OUTLINES, OUTLINE_SUFFIXES) for path in paths):
            masks_dir = MASKS if any(_beside(path, MASKS, MASK_SUFFIXES) for path in paths) else ""
        if masks_dir:
            _read_masks(collector, description, masks_dir)
        else:
            _read_outlines(collector, description)
    return collector.result()


def _replaced(path, folder):
    """Returns the path with the last folder `images` replaced, as Ultralytics does."""
    parts = list(path.parts)
    places = [number for number, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = folder
    return Path(*parts)


def _beside(path, folder, suffixes):
    """Returns the labels of an image in a folder beside `images`, in its own folder if there is none; or None."""
    candidates = (_replaced(path, folder).with_suffix(suffix) for suffix in suffixes)
    return next((file for file in candidates if file != path and file.is_file()), None)


def _read_masks(collector, description, masks_dir):
    """Adds the images whose masks are images."""
    collector.note(f"masks of the folders {masks_dir} are read, no outlines")
    if description.has_mapping and not collector.meaning.values:
        message = "label_mapping is not read; say what values mean, as --values=7:CLASS does"
        collector.fault("layout", description.path, message)
    values = description.classes | {IGNORE: IGNORE} | dict(collector.meaning.values)
    images, masks, of_images = collections.defaultdict(list), collections.defaultdict(list), set()
    for path, key in description.images:
        images[key].append(path)
        if mask := _beside(path, masks_dir, MASK_SUFFIXES):
            masks[key].append(mask)
            of_images.add(mask)
    pair(collector, images, masks, dataclasses.replace(collector.meaning, values=values))
    _check_lost(collector, description.images, masks_dir, MASK_SUFFIXES, of_images)


def _read_outlines(collector, description):
    """Adds the images whose outlines are in text files."""
    of_images = set()
    for path, key in description.images:
        rows = []
        if file := _beside(path, OUTLINES, OUTLINE_SUFFIXES):
            of_images.add(file)
            rows = _rows(collector, file, description.classes)
        else:
            collector.count("images without a file of labels, taken as all background, as Ultralytics has it", path)
        if size := collector.size(path, path):
            collector.add(path, -1, key.name, key.recording, key.split, functools.partial(_paint, rows, *size))
    _check_lost(collector, description.images, OUTLINES, OUTLINE_SUFFIXES, of_images)
    if not of_images:
        message = "no image has labels; expected labels/.../NAME.txt"
        collector.fault("missing_file", description.path, message)


def _check_lost(collector, images, name, suffixes, of_images):
    """Adds a fault for each file in the folders of labels, which have the name, that no image has."""
    folders = {_replaced(image.path, name).parent for image in images} - {image.path.parent for image in images}
    message = "there is no image of these labels; expected one of the same name in a split"
    for folder in sorted(folders):
        for file in list_files(folder, suffixes):
            if file.parent == folder and file not in of_images and file.name != "classes.txt":
                collector.fault("missing_file", file, message)


def _rows(collector, file, classes):
    """Returns the value, the normalized outline and the place of each row of a file of labels."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        collector.fault("unreadable_file", file, f"no text file ({error})")
        return []
    if not text.strip():
        collector.count("images with an empty file of labels, taken as all background", file)
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"{collector.place(file)}, line {number}"
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError:
            numbers = [math.nan]
        if problem := _problem(numbers):
            collector.fault(OUTLINE, place, problem)
        elif numbers[0] not in classes:
            message = f"the class is {numbers[0]:g}, expected one of names: {', '.join(map(str, classes))}"
            collector.fault("label", place, message)
        else:
            rows.append((classes[int(numbers[0])], np.reshape(numbers[1:], (-1, 2)), place))
    return rows


def _problem(numbers: Sequence[float]) -> str:
    """Returns what is wrong with the numbers of a row, "" if nothing is."""
    _, *points = numbers
    if not all(map(math.isfinite, numbers)):
        return "holds something else than numbers; expected CLASS X1 Y1 X2 Y2 X3 Y3 ..."
    if len(points) == 4:
        return "a box, which is no outline; expected at least three points: export segments, not detections"
    if len(points) < 6 or len(points) % 2:
        return f"{len(points)} numbers after the class; expected x and y of at least three points"
    if outside := [value for value in points if not 0 <= value <= 1]:
        return f"holds {outside[0]:g}; expected x / width and y / height, from 0 to 1"
    return ""


def _paint(rows, height, width):
    """Returns the mask of an image: its outlines, smaller ones over larger ones, of one size later ones."""
    layers = [
        Layer(value, functools.partial(from_polygons, [outline * (width, height)]), place)
        for value, outline, place in rows
    ]
    return paint(sorted(layers, key=lambda layer: -np.count_nonzero(layer.draw(height, width))), height, width)
