"""Files of labels and of the images that they are of: lists and finds them, and reads what their paths say."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.matching import natural

# Names of splits, as tools write them.
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
_SPLITS |= {"test": "test", "testing": "test"}
# Folders for images beside files of labels.
_FOLDERS = ("", "images", "JPEGImages", "data", "img", "frames")
_ARCHIVES_OF_MACOS = "__MACOSX"


def list_files(source: Path, suffixes: Collection[str] = ()) -> list[Path]:
    """Returns the files in a folder and the folders in it, in natural order and without hidden ones.

    Of `suffixes`, in small letters, alone if there are any. A `source` that is a file is returned by itself.
    """
    if source.is_file():
        return [source]
    found = []
    for folder, folders, names in os.walk(source, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".") and name != _ARCHIVES_OF_MACOS]
        found += [Path(folder, name) for name in names if not name.startswith(".")]
    return sorted((path for path in found if not suffixes or path.suffix.lower() in suffixes), key=natural_path)


def natural_path(path: Path) -> list:
    """Returns a key by which a/2.png comes before a/10.png."""
    return [natural(part) for part in path.parts]


def find_image(name: str, bases: Iterable[Path], folders: Iterable[str] = ()) -> Path | None:
    """Returns the image of a name, which may have folders, in one of `bases` or usual folders there; None if none is.

    `folders` are further names of folders, in a base or in its folder of images. A name without the suffix of an image
    stands for one with it, in small or large letters.
    """
    name = name.replace("\\", "/")
    names = [name]
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        names += [name + form for suffix in IMAGE_SUFFIXES for form in (suffix, suffix.upper())]
    below = [*_FOLDERS, *folders, *(f"images/{folder}" for folder in folders)]
    paths = (os.path.normpath(base / folder / name) for base in bases for folder in below for name in names)
    return next((Path(path) for path in paths if os.path.isfile(path)), None)


def split_of(*names: str) -> str:
    """Returns the split of `fume_jax.schema` that the first of some names means; "" if none does."""
    return next((_SPLITS[name.lower()] for name in names if name.lower() in _SPLITS), "")


def folder_of(name: str) -> str:
    """Returns the folder in the name of an image, "" if it has none."""
    folder = Path(name).parent.as_posix()
    return "" if folder == "." else folder
