"""Labels of CVAT as "Segmentation mask 1.1": images in the colours of `labelmap.txt`."""

import dataclasses
from pathlib import Path

from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import find_image, folder_of, list_files, split_of

_MASKS = "SegmentationClass"


def find_folders(source: Path) -> list[Path]:
    """Returns the folders below the source that hold masks in `SegmentationClass/`."""
    masks = list_files(source, (".png",)) if source.is_dir() else []
    return list(dict.fromkeys(folder.parent for mask in masks for folder in mask.parents if folder.name == _MASKS))


def read_folder(collector: Collector, folder: Path) -> None:
    """Reads the masks in `SegmentationClass/` of a folder.

    `labelmap.txt` has a line `name:red,green,blue:parts:actions` for each label; of grey masks, the values are the
    numbers of the lines, from 0. Colours and values that the user lists count more. Images are in `JPEGImages/`, in the
    folder or above it. The text files in `ImageSets/Segmentation/` are subsets, which may be splits; images that are
    listed and have no mask are not labelled, and left out.
    """
    colors = _read_labelmap(collector, folder / "labelmap.txt")
    if not colors:
        return
    values = dict(enumerate(colors.values()))
    of_user = collector.meaning
    meaning = dataclasses.replace(of_user, values=values | dict(of_user.values), colors=colors | dict(of_user.colors))
    subsets, bases = _read_subsets(folder), (folder, folder.parent)
    for mask in list_files(folder / _MASKS, (".png",)):
        name = mask.relative_to(folder / _MASKS).with_suffix("").as_posix()
        split = split_of(subsets.pop(name, ""))
        if image := find_image(name, bases):
            collector.add_mask_file(image, mask, image.stem, folder_of(name), split, meaning)
        else:
            collector.missing(name, mask, bases)
    if subsets:
        told = "images of ImageSets without a mask, which are not labelled and left out"
        collector.count(told, next(iter(subsets)), len(subsets))


def _read_labelmap(collector, path):
    """Returns values of masks by colour, in the order of the lines; None if the file is at fault."""
    if not path.is_file():
        collector.fault("missing_file", path, "there is no such file; it says which colour each label has")
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        collector.fault("unreadable_file", path, f"no text file ({error})")
        return None
    colors, sound = {}, True
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *fields = line.split(":")
        color = tuple(int(part) for part in fields[0].split(",") if part.strip().isdecimal()) if fields else ()
        place = f"{collector.place(path)}, line {number}"
        if len(color) != 3 or max(color) > 255 or color in colors:
            collector.fault("layout", place, "expected a line name:red,green,blue:: with a colour of its own")
            sound = False
        else:
            colors[color] = collector.value(name, place)
    if not colors and sound:
        collector.fault("layout", path, "lists no label; expected lines name:red,green,blue::")
    return colors if sound and None not in colors.values() else None


def _read_subsets(folder):
    """Returns the subsets, or splits, by the names of images without suffix."""
    found = {}
    for path in sorted(folder.glob("ImageSets/Segmentation/*.txt")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found |= {line.strip(): path.stem for line in lines if line.strip()}
    return found
