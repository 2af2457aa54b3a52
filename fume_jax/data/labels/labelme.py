"""Labels of LabelMe: a JSON file beside each image, or anywhere below the source with the path of its image in it.

The fields are those that LabelMe 5 writes: `version`, `flags`, `shapes`, `imagePath`, `imageData`, `imageHeight` and
`imageWidth`; of a shape `label`, `points`, `group_id`, `description`, `shape_type`, `flags` and `mask`. LabelMe shows
images upright by their EXIF orientation, so points are of the upright picture. As in its own export
(`labelme.utils.shapes_to_label`), later shapes lie over earlier ones. Unlike there, a pixel that an outline only
touches is not inside; see `fume_jax.data.labels.shapes`.
"""

import base64
import functools
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fume_jax.data.faults import UnreadableFrame, check_size
from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import find_image, list_files, natural_path, split_of
from fume_jax.data.labels.label import NAMES, Labels, Meaning, UnusableMask
from fume_jax.data.labels.manifest import SHEET
from fume_jax.data.labels.shapes import (
    OUTLINE,
    Layer,
    as_ellipse,
    as_points,
    box_of,
    from_polygons,
    paint,
    regions,
    to_polygons,
)
from fume_jax.runtime.files import replacing

# Version of the format that is written.
VERSION = "5.5.0"
# Shapes without an area.
_THIN = ("point", "points", "line", "linestrip")


def read(source: Path, meaning: Meaning) -> Labels:
    """Reads the LabelMe files of a folder and of the folders in it.

    A frame whose file has no shape is background; an image without a file is not labelled, and left out. The recording
    is the folder of the image. Group ids, descriptions and flags do not change masks; flags that are set are noted.
    """
    collector = Collector(source, meaning)
    named, found = set(), 0
    for path, content in collector.read_json_files():
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list) or "imagePath" not in content:
            collector.count("JSON files that are none of LabelMe, left out", path)
            continue
        found += 1
        if image := _find_image(collector, path, content):
            named.add(image)
            _read_file(collector, path, content, image)
    if not found:
        collector.fault("layout", collector.source, "holds no file of LabelMe: JSON with `shapes` and `imagePath`")
    images = {path for path in list_files(collector.source, IMAGE_SUFFIXES) if path.name != SHEET}
    if others := images - named:
        first = min(others, key=natural_path)
        collector.count("images without a file of LabelMe, which are not labelled and left out", first, len(others))
    return collector.result()


def _find_image(collector, path, content):
    name = str(content["imagePath"]).replace("\\", "/")
    beside = path.parent / name.rpartition("/")[2]
    if image := find_image(name, [path.parent]) or find_image(beside.name, [path.parent]):
        if image != Path(os.path.normpath(path.parent / name)):
            collector.count("images that are not where `imagePath` says, found by their name beside their file", path)
        return image
    remedy = "put the image beside the file"
    if content.get("imageData"):
        remedy = f"its picture is in `imageData` of the file alone: write it beside the file as {beside.name}"
    collector.fault("missing_file", path, f"there is no image {name}; {remedy}")
    return None


def _read_file(collector, path, content, image):
    stated = content.get("imageHeight"), content.get("imageWidth")
    size = collector.size(image, collector.place(path), None if None in stated else stated)
    if size is None:
        return
    _note_flags(collector, content, "images", path)
    layers = []
    for number, shape in enumerate(content["shapes"], 1):
        place = f"{collector.place(path)}, shape {number}"
        try:
            layer = _read_shape(collector, shape, place, size)
        except UnusableMask as error:
            collector.fault(error.kind, place, str(error))
            continue
        if layer:
            layers.append(layer)
    folder = collector.within(image.parent)
    recording = "" if folder in (Path(), image.parent) else folder.as_posix()
    collector.add(image, -1, image.stem, recording, split_of(*folder.parts), functools.partial(paint, layers, *size))


def _read_shape(collector, shape, place, size):
    """Returns the layer of a shape, None if it has no area or no known label."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise UnusableMask(OUTLINE, "has no label")
    kind = shape.get("shape_type") or "polygon"
    if kind in _THIN:
        collector.count(f"shapes of the type {kind}, which have no area and are left out", place)
        return None
    _note_flags(collector, shape, "shapes", place)
    draw = _region_of(collector, kind, shape, size, place)
    value = collector.value(shape["label"], place)
    return None if value is None else Layer(value, draw, place)


def _note_flags(collector, entry, kind, place):
    flags = entry.get("flags")
    for flag in (name for name, is_set in flags.items() if is_set) if isinstance(flags, dict) else ():
        collector.count(f"{kind} with the flag {flag!r}, which is not read", place)


def _region_of(collector, kind, shape, size, place):
    points = as_points(shape.get("points"), *size, at_least=3 if kind in ("polygon", "oriented_rectangle") else 2)
    if kind == "rectangle" and len(points) == 2:
        collector.count("rectangles, taken as filled", place)
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    if kind in ("polygon", "rectangle", "oriented_rectangle"):
        return functools.partial(from_polygons, [points])
    if kind == "circle" and len(points) == 2:
        radius = float(np.hypot(*(points[1] - points[0])))
        return as_ellipse(points[0], (radius, radius), 0, *size)
    if kind == "mask" and len(points) == 2 and isinstance(shape.get("mask"), str):
        return functools.partial(_decode_mask, shape["mask"], points)
    raise UnusableMask(OUTLINE, f"is of the type {kind!r} with {len(points)} points, which LabelMe does not write")


def _decode_mask(text, points, height, width):
    """Decodes a mask in its box, whose last row and column are inside; what is outside the frame is cut off.

    As in LabelMe, whole numbers crop the mask to the box, and fractions give the place of its first pixel alone.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=("PNG",)) as image:
            check_size(image.height, image.width)
            patch = np.asarray(image).astype(bool)
    except UnreadableFrame as error:
        raise UnusableMask(OUTLINE, str(error)) from error
    except Exception as error:  # of many types, by the damage
        raise UnusableMask(OUTLINE, f"its mask is no PNG image in base64 ({error})") from error
    (left, top), (right, bottom) = np.round(points).astype(int).tolist()
    if (points == np.trunc(points)).all():
        box = (bottom + 1 - top, right + 1 - left)
        if patch.ndim != 2 or patch.shape[0] < box[0] or patch.shape[1] < box[1]:
            got = "x".join(map(str, patch.shape[1::-1]))
            raise UnusableMask(OUTLINE, f"its mask is of {got} pixels, its box of {box[1]}x{box[0]}")
        patch = patch[: box[0], : box[1]]
    region = np.zeros((height, width), bool)
    patch = patch[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = max(top, 0), max(left, 0)
    region[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
    return region


def write(
    path: Path,
    image_name: str,
    mask: np.ndarray,
    *,
    exact: bool,
    flags: Mapping[str, bool] | None = None,
    other: Mapping | None = None,
) -> None:
    """Writes a mask, uint8 [H, W], as a file of LabelMe 5, which `read` gives back without a pixel of difference.

    Every value but background is a shape labelled by its name in `label.VALUES`, `ignore` and `not_gas` among them.

    Args:
      path: the file, beside the image or elsewhere.
      image_name: path of the image from the folder of the file.
      mask: values of `fume_jax.schema`.
      exact: one shape of the type `mask` for a value; else polygons along the edges of the pixels, whose corners can be
        moved by hand.
      flags: flags of the image by name.
      other: further entries of the file, which LabelMe keeps.
    """
    shapes = []
    for value, region in regions(mask).items():
        if exact:
            left, top, width, height = box_of(region)
            patch = region[top : top + height, left : left + width].astype(np.uint8)
            text = base64.b64encode(cv2.imencode(".png", patch)[1]).decode("ascii")
            box = [[left, top], [left + width - 1, top + height - 1]]
            shapes.append(_shape(NAMES[value], "mask", box, text))
        else:
            shapes += [_shape(NAMES[value], "polygon", points.tolist(), None) for points in to_polygons(region)]
    height, width = mask.shape
    content = {"version": VERSION, "flags": dict(flags or {}), "shapes": shapes, "imagePath": image_name}
    content |= {"imageData": None, "imageHeight": height, "imageWidth": width, **(other or {})}
    with replacing(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=False, indent=2), encoding="utf-8")


def _shape(label, kind, points, mask):
    shape = {"label": label, "points": [[float(x), float(y)] for x, y in points], "group_id": None}
    return shape | {"description": "", "shape_type": kind, "flags": {}, "mask": mask}
