"""Pairs images with masks of the same name; what the formats whose labels are images have in common."""

import collections
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.labels.label import Fault, Label, Labels, Meaning
from fume_jax.data.labels.pixels import MaskFile, image_size
from fume_jax.data.matching import natural
from fume_jax.schema import SPLITS

# Names of folders that name a split.
SPLIT_FOLDERS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
SPLIT_FOLDERS |= {"test": "test", "testing": "test"}
_ARCHIVES_OF_MACOS = "__MACOSX"


class Key(NamedTuple):
    """Names a frame; of an image and its mask the keys are equal."""

    split: str
    recording: str
    name: str


def list_files(source: Path) -> list[Path]:
    """Returns the files below a folder, relative to it and in natural order, without hidden ones."""
    found = []
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != _ARCHIVES_OF_MACOS]
        found += [Path(folder, name).relative_to(source) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: [natural(part) for part in path.parts])


def is_image(path: Path) -> bool:
    """Returns whether the name of a file is that of an image that is read."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def key_of(parts: Sequence[str], name: str) -> Key:
    """Returns the key of a frame by the folders that it is in; the first one may name the split."""
    split = SPLIT_FOLDERS.get(parts[0].lower(), "") if parts else ""
    return Key(split, "/".join(parts[1:] if split else parts), name)


def pair(source: Path, images: Mapping[Key, list[Path]], masks: Mapping[Key, list[Path]], meaning: Meaning) -> Labels:
    """Pairs images and masks, whose paths are relative to `source`; images without a mask are left out with a note."""
    labels, faults, unlabelled = [], [], []
    for key in sorted(images.keys() | masks.keys(), key=_order):
        of_images, of_masks = images.get(key, []), masks.get(key, [])
        several = [files for files in (of_images, of_masks) if len(files) > 1]
        if several:
            faults += [_several(files, "mask" if files is of_masks else "image") for files in several]
        elif not of_images:
            message = f"there is no image of this mask; expected one with the name {key.name}"
            faults.append(Fault("missing_file", of_masks[0].as_posix(), message))
        elif not of_masks:
            unlabelled.append(of_images[0])
        elif fault := _size_fault(source, of_images[0], of_masks[0]):
            faults.append(fault)
        else:
            read_mask = MaskFile(source / of_masks[0], meaning)
            labels.append(Label(source / of_images[0], -1, key.name, key.recording, key.split, read_mask))
    notes = [f"{counted(unlabelled, 'image')} without a mask left out"] if unlabelled else []
    return Labels(labels, faults + repeated_names(source, labels), notes)


def counted(files: Sequence[Path], noun: str) -> str:
    """Returns how many files there are, and the first one."""
    return f"{len(files)} {noun}{'s' * (len(files) != 1)} (such as {files[0].as_posix()})"


def not_read(files: Iterable[Path]) -> list[str]:
    """Returns a note that counts files by suffix, if there are any."""
    counts = collections.Counter(path.suffix.lower() or path.name for path in files)
    suffixes = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    return [f"files that are neither an image nor a mask are not read: {suffixes}"] if counts else []


def repeated_names(source: Path, labels: Sequence[Label]) -> list[Fault]:
    """Returns a fault for each label that has the name of an earlier one of its recording, in another split."""
    faults, earlier = [], {}
    for label in labels:
        first = earlier.setdefault((label.recording, label.name), label)
        if first is not label:
            message = f"{relative(first.image, source)} has its name, in the same recording; rename or keep one"
            faults.append(Fault("duplicate", relative(label.image, source), message))
    return faults


def unknown_name(name: object, found: Iterable[object], meaning: Meaning, place: str) -> Fault:
    """Returns the fault of a name of a class that `meaning` does not list."""
    message = f"nobody says what {name!r} is; found {', '.join(map(str, found))}, expected {', '.join(meaning.names)}"
    return Fault("label", place, f"{message}; name it by --labels={name}:gas")


def relative(path: Path, source: Path) -> str:
    """Returns a path relative to a folder if it is in there."""
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else str(path)


def _order(key):
    return ("", *SPLITS).index(key.split), natural(key.recording), natural(key.name)


def _several(files, noun):
    names = " and ".join(file.as_posix() for file in files[1:])
    return Fault("duplicate", files[0].as_posix(), f"{names}: another {noun} of the same frame; keep one")


def _size_fault(source, image, mask):
    sizes = []
    for path in (image, mask):
        try:
            sizes.append(image_size(source / path))
        except UnreadableFrame as error:
            return Fault("unreadable_file", path.as_posix(), str(error))
    if sizes[0] == sizes[1]:
        return None
    image_text, mask_text = (f"{width}x{height}" for height, width in sizes)
    return Fault("size", mask.as_posix(), f"the mask is {mask_text}, its image {image.as_posix()} {image_text}")
