"""Labels of COCO: `images`, `annotations` and `categories` in JSON, as cocodataset.org describes for object detection.

Regions are polygons or run lengths, compressed or not, of the picture whose `height` and `width` the file states; that
has to be the upright one. Annotations are painted in the order of their ids, so later ones lie over earlier ones.
"""

import collections
import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import find_image, folder_of, split_of
from fume_jax.data.labels.label import NAMES, Labels, Meaning
from fume_jax.data.labels.shapes import OUTLINE, Layer, box_of, decode_coco, encode_coco, paint, regions
from fume_jax.runtime.files import replacing
from fume_jax.schema import BACKGROUND

# What paths of other machines begin with.
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")
_LISTS = ("images", "annotations", "categories")
# Categories in the order of their ids, from 1. Frames of background alone have one annotation, of that category.
_CATEGORIES = (*(name for value, name in NAMES.items() if value != BACKGROUND), NAMES[BACKGROUND])


def read(source: Path, meaning: Meaning, *, empty_is_background: bool = False) -> Labels:
    """Reads a COCO file, or those in a folder and the folders in it.

    The name of a file, or of its folder, gives the split: `instances_val2017.json`, `train/_annotations.coco.json`. The
    recording is the folder in `file_name`. Images are looked for in the folder of the file and the one above, and in
    `images/` and folders of the split there.

    The format cannot say whether an image without annotation shows nothing or is not labelled. Such images are left
    out, as most trainers do; `empty_is_background` takes them as background. A note counts them either way.
    """
    collector = Collector(source, meaning)
    found = 0
    for path, content in collector.read_json_files():
        if isinstance(content, dict) and all(isinstance(content.get(name), list) for name in _LISTS):
            found += 1
            _read_file(collector, path, content, empty_is_background)
        else:
            collector.count("JSON files that are none of COCO, left out", path)
    if not found:
        collector.fault("layout", collector.source, f"holds no file of COCO: JSON with the lists {', '.join(_LISTS)}")
    return collector.result()


def _read_file(collector, path, content, empty_is_background):
    file = collector.place(path)
    images = _by_id(collector, file, content["images"], "image", {"file_name": str, "height": int, "width": int})
    categories = _by_id(collector, file, content["categories"], "category", {"name": str})
    layers = collections.defaultdict(list)
    for annotation in _ordered(content["annotations"]):
        place = f"{file}, annotation {_id(annotation, 'id')}"
        if layer := _layer(collector, annotation, place, images, categories):
            layers[annotation["image_id"]].append(layer)
    # Words of the name with their numbers, since folders of images have them: `val2017`.
    words = {word: split_of(word.rstrip("0123456789")) for word in re.split(r"[\W_]+", path.stem)}
    words = {word: split for word, split in words.items() if split} or {"": split_of(path.parent.name)}
    described = {_id(annotation, "image_id") for annotation in content["annotations"]}
    for id, image in images.items():
        if id not in described:
            taken = "taken as background" if empty_is_background else "left out"
            collector.count(
                f"images without annotation, which may show nothing or not be labelled, {taken}", f"{file}, image {id}"
            )
            if not empty_is_background:
                continue
        _add(collector, path, f"{file}, image {id}", image, words, layers[id])


def _add(collector, path, place, image, words, layers):
    name = image["file_name"].replace("\\", "/")
    if _ABSOLUTE.match(name):  # of another machine; the folder of the image may be that of a recording
        name = "/".join(name.split("/")[-2:])
    bases, folders = dict.fromkeys((path.parent, path.parent.parent)), dict.fromkeys((*words, *words.values()))
    split = next(iter(words.values()))
    if (found := find_image(name, bases, folders)) is None:
        if (found := find_image(Path(name).name, bases, folders)) is None:
            collector.missing(name, place, bases)
            return
        collector.count("images that are not where `file_name` says, found by their name", place)
    size = collector.size(found, place, (image["height"], image["width"]))
    if size is not None:
        read_mask = functools.partial(paint, layers, *size)
        collector.add(found, -1, found.stem, folder_of(name), split, read_mask)


def _by_id(collector, file, entries, kind, types):
    """Returns the entries by id that have all keys; others, and the same id again, become faults."""
    found = {}
    for number, entry in enumerate(entries, 1):
        id = _id(entry, "id")
        place = f"{file}, {kind} {f'number {number}' if id is None else id}"
        if lacking := [key for key, type in types.items() if not isinstance(_get(entry, key), type)]:
            collector.fault("layout", place, f"lacks {', '.join(lacking)}")
        elif id is None or id in found:
            message = "has no id" if id is None else f"the id {id} is that of an earlier {kind}, too"
            collector.fault("duplicate", place, message)
        else:
            found[id] = entry
    return found


def _get(entry, key):
    return entry.get(key) if isinstance(entry, dict) else None


def _id(entry, key):
    """Returns an id, a number or a text; None if there is none."""
    id = _get(entry, key)
    return id if isinstance(id, int | str) else None


def _ordered(annotations):
    """Returns annotations in the order of their ids, in that of the file if one has no number."""
    numbered = all(isinstance(_id(annotation, "id"), int) for annotation in annotations)
    return sorted(annotations, key=lambda annotation: annotation["id"]) if numbered else annotations


def _layer(collector, annotation, place, images, categories):
    image, category = _id(annotation, "image_id"), _id(annotation, "category_id")
    if image not in images:
        collector.fault("missing_file", place, f"is of the image {image}, which the file does not list")
        return None
    if category not in categories:
        collector.fault("label", place, f"is of the category {category}, which the file does not list")
        return None
    segmentation = annotation.get("segmentation")
    if not segmentation or not isinstance(segmentation, list | dict):
        given = "a box alone" if annotation.get("bbox") else "neither a segmentation nor a box"
        collector.fault(OUTLINE, place, f"has {given}; expected polygons or run lengths as its segmentation")
        return None
    if annotation.get("iscrowd"):
        collector.count("annotations of crowds (iscrowd), taken like others", place)
    value = collector.value(categories[category]["name"], place)
    return None if value is None else Layer(value, functools.partial(decode_coco, segmentation), place)


def write(path: Path, entries: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes masks, uint8 [H, W] by the names of their images, as a COCO file; `read` gives every bit back.

    Every value in a mask is one annotation with compressed run lengths, in a category of its name in `label.VALUES`,
    but for background, of which there is an annotation only where there is nothing else: it says that the frame was
    labelled.
    """
    images, annotations = [], []
    for id, (name, mask) in enumerate(entries, 1):
        height, width = mask.shape
        images.append({"id": id, "file_name": name, "height": height, "width": width})
        for value, region in (regions(mask) or {BACKGROUND: mask == BACKGROUND}).items():
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": id,
                    "category_id": _CATEGORIES.index(NAMES[value]) + 1,
                    "segmentation": encode_coco(region),
                    "area": int(region.sum()),
                    "bbox": list(box_of(region)),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": id, "name": name, "supercategory": ""} for id, name in enumerate(_CATEGORIES, 1)]
    content = {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}
    with replacing(path) as part:
        part.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
