"""Outlines and masks in the layouts of Ultralytics.

Outlines: https://docs.ultralytics.com/datasets/segment, masks: https://docs.ultralytics.com/datasets/semantic.
"""

import collections
import dataclasses
import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.labels.label import Fault, Label, Labels, Meaning, UnusableMask
from fume_jax.data.labels.pairing import (
    SPLIT_FOLDERS,
    counted,
    is_image,
    key_of,
    list_files,
    pair,
    relative,
    repeated_names,
    unknown_name,
)
from fume_jax.data.labels.pixels import image_size
from fume_jax.schema import BACKGROUND, IGNORE

# Keys of the description that name the images of a split.
SPLIT_KEYS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
DESCRIPTIONS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
# The folder of masks, if the description does not name it.
MASKS = "masks"


class _Faulty(Exception):
    """Ends the reading with a fault without which nothing else can be read."""


@dataclasses.dataclass(frozen=True)
class _Image:
    """An image of a split, and the folders between that of the split and it."""

    path: Path
    split: str
    folders: tuple[str, ...]

    @property
    def key(self):
        folders = [part for part in self.folders if part.lower() != "images"]
        key = key_of(folders, self.path.stem)
        return key._replace(split=self.split)


def read(source: Path, meaning: Meaning) -> Labels:
    """Reads the labels of a data set that a YAML file describes; `source` is that file or its folder.

    Of `images/.../NAME.jpg` the outlines are in `labels/.../NAME.txt`, or, if the description has `masks_dir` or there
    are masks and no outlines, the mask is in `masks/.../NAME.png`. Its values are the indices of `names` and 255 for
    pixels to ignore, unless `meaning` lists values. The folders below that of a split name the recording.

    A pixel is of a class if its centre is inside the outline; of outlines that overlap the later one counts, where
    Ultralytics takes the smaller one. An image with an empty file, or none, is all background, as Ultralytics has it.
    """
    file, faults = _find(source)
    if faults:
        return Labels([], faults, [])
    try:
        description = _describe(file)
        classes, faults = _classes(description, meaning, file.name)
        root, notes = _root(description, file)
        images, missing = _images(description, root, file, notes)
    except _Faulty as fault:
        return Labels([], [Fault(*fault.args)], [])
    images, repeated = _once(images, root)
    faults += missing + repeated
    masks_dir = description.get("masks_dir")
    if masks_dir is None and not any(_beside(image.path, "labels", (".txt",)) for image in images):
        masks_dir = MASKS if any(_beside(image.path, MASKS, MASK_SUFFIXES) for image in images) else None
    if masks_dir is None:
        found = _read_outlines(images, root, classes)
    else:
        found = _read_masks(images, root, str(masks_dir), classes, description, meaning, file.name)
    return Labels(found.labels, faults + found.faults, notes + found.notes)


def fill(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Returns the pixels whose centres are inside one of the polygons, bool [H, W].

    Polygons are float [N, 2] of x and y, where the pixel of row r and column c covers [c, c + 1] x [r, r + 1]. By the
    even-odd rule, so a ring that is joined to another by an edge there and back is a part of its own, or a hole. A
    centre on an edge is inside if the polygon is to its right, or below.
    """
    inside = np.zeros((height, width), bool)
    for polygon in polygons:
        ends = np.stack([polygon, np.roll(polygon, -1, axis=0)])
        downward = np.argsort(ends[..., 1], axis=0)  # both ways of an edge cross the rows at the same places
        (x0, y0), (x1, y1) = np.take_along_axis(ends, downward[..., None], axis=0).swapaxes(1, 2)
        first, last = (np.ceil(y - 0.5).clip(0, height).astype(int) for y in (y0, y1))
        rows = last - first
        edge = np.repeat(np.arange(len(polygon)), rows)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
        x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
        column = np.ceil(x - 0.5).clip(0, width).astype(int)
        crossings = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
        inside |= np.cumsum(crossings.reshape(height, width + 1), axis=1)[:, :width] % 2 == 1
    return inside


def _find(source):
    """Returns the description, and the faults if there is not exactly one."""
    if source.is_file():
        return source, []
    named = [source / name for name in DESCRIPTIONS if (source / name).is_file()]
    found = named or sorted(file for file in source.glob("*.y*ml") if file.suffix in (".yaml", ".yml"))
    if len(found) == 1:
        return found[0], []
    what = f"holds {', '.join(file.name for file in found)}" if found else "holds no YAML file"
    return None, [Fault("layout", str(source), f"{what}; expected one data.yaml that names the images and classes")]


def _describe(file):
    import yaml

    try:
        description = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _Faulty("format", file.name, f"no YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(description, dict) or not isinstance(description.get("names"), list | dict):
        raise _Faulty("format", file.name, "expected the key names, a list of the classes or NUMBER: NAME")
    return description


def _classes(description, meaning, place):
    """Returns the values of masks by the numbers of classes, and the faults."""
    names = description["names"]
    names = names if isinstance(names, dict) else dict(enumerate(names))
    classes, faults = {}, []
    for number, name in names.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            faults.append(Fault("label", place, f"names has the key {number!r}; expected a number from 0"))
        elif str(name).lower() not in meaning.names:
            faults.append(unknown_name(name, names.values(), meaning, place))
        classes[number] = meaning.names.get(str(name).lower(), IGNORE)
    if description.get("nc", len(names)) != len(names):
        faults.append(Fault("label", place, f"nc is {description['nc']}, but there are {len(names)} names"))
    return classes, faults


def _root(description, file):
    """Returns the folder that paths are relative to, and notes: the `path` of another machine is not there."""
    path = description.get("path")
    if not path:
        return file.parent, []
    root = Path(os.path.normpath(file.parent / str(path)))
    if root.is_dir():
        return root, []
    return file.parent, [f"{file.name}: the path {path} is not there, so the folder of the file is taken"]


def _images(description, root, file, notes):
    """Returns the images of all splits in order, and the faults; appends to the notes."""
    images, faults = [], []
    for key, split in SPLIT_KEYS.items():
        given = description.get(key) or []
        for entry in map(str, given if isinstance(given, list) else [given]):
            path = root / entry
            if not path.exists() and entry.startswith("../") and (root / entry[3:]).exists():
                path = root / entry[3:]  # as Roboflow writes it, and Ultralytics reads it
                notes.append(f"{file.name}: {key} is {entry}, which is not there, so {entry[3:]} is taken")
            if path.is_dir():
                found = [_Image(path / name, split, name.parts[:-1]) for name in list_files(path) if is_image(name)]
            elif path.is_file():
                found, missing = _listed(path, split, root)
                faults += missing
            else:
                found = []
            if not found:
                message = f"{key} is {entry}; expected a folder of images, or a text file that lists them"
                faults.append(Fault("missing_file", file.name, message))
            images += found
    if not images and not faults:
        raise _Faulty("format", file.name, f"names no images; expected the keys {', '.join(SPLIT_KEYS)}")
    return images, faults


def _listed(path, split, root):
    """Returns the images that a text file lists, relative to its folder or to the root, and the faults."""
    images, faults = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not (name := line.strip()):
            continue
        places = [Path(os.path.normpath(folder / name)) for folder in (path.parent, root)]
        image = next((place for place in places if place.is_file()), None)
        if image is None:
            faults.append(Fault("missing_file", f"{relative(path, root)}, line {number}", f"there is no {name}"))
            continue
        folders = Path(relative(image, root)).parts[:-1] if image.is_relative_to(root) else ()
        below = tuple(part for part in folders if SPLIT_FOLDERS.get(part.lower()) != split)
        images.append(_Image(image, split, below))
    return images, faults


def _once(images, root):
    """Returns the images without repetition, and a fault for each that is in a split, or a list, once more."""
    faults, earlier = [], {}
    for image in images:
        if first := earlier.get(image.path.resolve()):
            message = f"in {image.split} and in {first.split}; expected every image in one split, once"
            faults.append(Fault("split", relative(image.path, root), message))
        earlier.setdefault(image.path.resolve(), image)
    return list(earlier.values()), faults


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


def _read_masks(images, root, masks_dir, classes, description, meaning, place):
    """Returns the labels of images whose masks are images."""
    faults = []
    values = meaning.values or classes | {IGNORE: IGNORE}
    if description.get("label_mapping") and not meaning.values:
        faults.append(Fault("format", place, "label_mapping is not read; say what values mean, as --values=7:gas does"))
    by_key, masks, of_images = collections.defaultdict(list), collections.defaultdict(list), set()
    for image in images:
        by_key[image.key].append(image.path.relative_to(root) if image.path.is_relative_to(root) else image.path)
        if mask := _beside(image.path, masks_dir, MASK_SUFFIXES):
            masks[image.key].append(mask.relative_to(root) if mask.is_relative_to(root) else mask)
            of_images.add(mask)
    found = pair(root, by_key, masks, dataclasses.replace(meaning, values=values))
    folders = {_replaced(image.path, masks_dir).parent for image in images} - {image.path.parent for image in images}
    faults += _without_image(folders, of_images, MASK_SUFFIXES, root)
    return Labels(
        found.labels, faults + found.faults, [f"masks of the folders {masks_dir} are read, no outlines", *found.notes]
    )


def _without_image(folders, of_images, suffixes, root):
    """Returns a fault for each file of labels that no image has."""
    files = (file for folder in sorted(folders) if folder.is_dir() for file in sorted(folder.iterdir()))
    lost = [file for file in files if file.suffix.lower() in suffixes and file not in of_images]
    message = "there is no image of these labels; expected one of the same name in a split"
    return [Fault("missing_file", relative(file, root), message) for file in lost if file.name != "classes.txt"]


def _read_outlines(images, root, classes):
    """Returns the labels of images whose outlines are in text files."""
    labels, faults, of_images, absent, empty, overlapping = [], [], set(), [], [], []
    for image in images:
        rows = []
        if file := _beside(image.path, "labels", (".txt",)):
            of_images.add(file)
            rows, wrong = _rows(file, relative(file, root), classes)
            faults += wrong
            empty += [image.path] * (not rows and not wrong)
        else:
            absent.append(image.path)
        overlapping += [image.path] * _order_matters(rows)
        read_mask = functools.partial(_paint, image.path, tuple(rows))
        labels.append(Label(image.path, -1, image.key.name, image.key.recording, image.split, read_mask))
    folders = {_replaced(image.path, "labels").parent for image in images} - {image.path.parent for image in images}
    faults += _without_image(folders, of_images, (".txt",), root)
    if not of_images:
        faults.append(Fault("missing_file", relative(root, root), "no image has labels; expected labels/.../NAME.txt"))
    notes = [
        f"{counted([Path(relative(path, root)) for path in paths], 'image')} {what}"
        for paths, what in (
            (absent, "without a file of labels taken as all background, as Ultralytics has it"),
            (empty, "with an empty file of labels taken as all background"),
            (overlapping, "with a larger outline over a smaller one of another class: the later one counts"),
        )
        if paths
    ]
    return Labels(labels, faults + repeated_names(root, labels), notes)


def _rows(file, place, classes):
    """Returns the values of masks and the outlines of a file of labels, normalised, and the faults."""
    rows, faults = [], []
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return [], [Fault("format", place, f"no text file ({error})")]
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            numbers = [float(word) for word in line.split()]
        except ValueError:
            numbers = [math.nan]
        if message := _row_fault(numbers, classes):
            faults.append(Fault("label", f"{place}, line {number}", message))
        else:
            rows.append((classes[int(numbers[0])], np.reshape(numbers[1:], (-1, 2))))
    return rows, faults


def _row_fault(numbers, classes):
    """Returns what is wrong with the numbers of a row, "" if nothing is."""
    class_, *points = numbers
    if not all(map(math.isfinite, numbers)):
        return "holds something else than numbers; expected CLASS X1 Y1 X2 Y2 X3 Y3 ..."
    if class_ not in classes:
        return f"the class is {class_:g}, expected one of names: {', '.join(map(str, classes))}"
    if len(points) == 4:
        return "a box, which is no outline; expected at least three points: export segments, not detections"
    if len(points) < 6 or len(points) % 2:
        return f"{len(points)} numbers after the class; expected x and y of at least three points"
    if outside := [value for value in points if not 0 <= value <= 1]:
        return f"holds {outside[0]:g}; expected x / width and y / height, from 0 to 1"
    return ""


def _order_matters(rows):
    """Returns whether an outline is over a smaller one of another class, as far as their boxes overlap."""
    boxes = [(outline.min(axis=0), outline.max(axis=0)) for _, outline in rows]
    areas = [_area(outline) for _, outline in rows]
    return any(
        rows[early][0] != rows[late][0]
        and areas[late] > areas[early]
        and (np.maximum(boxes[early][0], boxes[late][0]) < np.minimum(boxes[early][1], boxes[late][1])).all()
        for late in range(len(rows))
        for early in range(late)
    )


def _area(outline):
    x, y = outline.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def _paint(image, rows):
    """Returns the mask of an image: its outlines, later ones over earlier ones."""
    try:
        height, width = image_size(image)
    except UnreadableFrame as error:
        raise UnusableMask("unreadable_file", str(error)) from error
    mask = np.full((height, width), BACKGROUND, np.uint8)
    for value, outline in rows:
        mask[fill([outline * (width, height)], height, width)] = value
    return mask
