"""Descriptions of data sets of Ultralytics: the YAML file that names their images and classes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import find_image, list_files, split_of
from fume_jax.data.labels.pairing import Key, key_of
from fume_jax.schema import IGNORE

DESCRIPTIONS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
# Keys that name the images of a split.
SPLIT_KEYS = ("train", "val", "validation", "test")


class Image(NamedTuple):
    """An image of a split, and its key."""

    path: Path
    key: Key


class Description(NamedTuple):
    """What a description says; `masks_dir` is "" if it names no folder of masks."""

    path: Path
    images: Sequence[Image]
    classes: dict[int, int]  # values of masks by the numbers of classes
    masks_dir: str
    has_mapping: bool  # to other values of masks


def read_description(collector: Collector) -> Description | None:
    """Reads the one description in the source, or the source if it is a file; None if it is at fault."""
    path = _find(collector)
    content = path and _load(collector, path)
    if not content:
        return None
    classes, images = _classes(collector, content, path), _images(collector, content, path)
    masks_dir = str(content.get("masks_dir") or "")
    return Description(path, images, classes, masks_dir, bool(content.get("label_mapping"))) if images else None


def _find(collector):
    source = collector.source
    if source.is_file():
        return source
    named = [source / name for name in DESCRIPTIONS if (source / name).is_file()]
    found = named or sorted(file for file in source.glob("*.y*ml") if file.suffix in (".yaml", ".yml"))
    if len(found) == 1:
        return found[0]
    what = f"holds {', '.join(file.name for file in found)}" if found else "holds no YAML file"
    collector.fault("layout", source, f"{what}; expected one data.yaml that names the images and classes")
    return None


def _load(collector, path):
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        collector.fault("unreadable_file", path, f"no YAML file ({' '.join(str(error).split())})")
        return None
    if not isinstance(content, dict) or not isinstance(content.get("names"), list | dict):
        collector.fault("layout", path, "expected the key names, a list of the classes or NUMBER: NAME")
        return None
    return content


def _classes(collector, content, path):
    """Returns the values of masks by the numbers of classes."""
    names = content["names"]
    names = names if isinstance(names, dict) else dict(enumerate(names))
    classes = {}
    for number, name in names.items():
        if type(number) is not int or number < 0:
            collector.fault("label", path, f"names has the key {number!r}; expected a number from 0")
            continue
        value = collector.value(str(name), path)
        classes[number] = IGNORE if value is None else value
    if content.get("nc", len(names)) != len(names):
        collector.fault("label", path, f"nc is {content['nc']}, but there are {len(names)} names")
    return classes


def _images(collector, content, file):
    """Returns the images of all splits in order."""
    root, images, named = _root(collector, content.get("path"), file), [], False
    for key in SPLIT_KEYS:
        given = content.get(key) or []
        for entry in map(str, given if isinstance(given, list) else [given]):
            named, path = True, root / entry
            if not path.exists() and entry.startswith("../") and (root / entry[3:]).exists():
                path = root / entry[3:]  # as Roboflow writes it, and Ultralytics reads it
                collector.note(f"{file.name}: {key} is {entry}, which is not there, so {entry[3:]} is taken")
            if path.is_dir():
                files = list_files(path, IMAGE_SUFFIXES)
                found = [_image(image, key, image.relative_to(path).parts[:-1]) for image in files]
            else:
                found = _listed(collector, path, key, root) if path.is_file() else []
            if not found:
                message = f"{key} is {entry}; expected a folder of images, or a text file that lists them"
                collector.fault("missing_file", file, message)
            images += found
    if not named:
        collector.fault("layout", file, f"names no images; expected the keys {', '.join(SPLIT_KEYS)}")
    return images


def _root(collector, given, file):
    """Returns the folder that paths are relative to; the `path` of another machine is not there."""
    root = Path(os.path.normpath(file.parent / str(given or "")))
    if root.is_dir():
        return root
    collector.note(f"{file.name}: the path {given} is not there, so the folder of the file is taken")
    return file.parent


def _listed(collector, path, key, root):
    """Returns the images that a text file lists, relative to its folder or to the root."""
    images = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not (name := line.strip()):
            continue
        image = find_image(name, (path.parent, root))
        if image is None:
            collector.missing(name, f"{collector.place(path)}, line {number}", (path.parent, root))
            continue
        folders = image.relative_to(root).parts[:-1] if image.is_relative_to(root) else ()
        images.append(_image(image, key, [part for part in folders if split_of(part) != split_of(key)]))
    return images


def _image(path, split_key, folders):
    key = key_of([part for part in folders if part.lower() != "images"], path.stem)
    return Image(path, key._replace(split=split_of(split_key)))
