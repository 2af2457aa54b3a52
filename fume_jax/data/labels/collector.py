"""Collects what a source of labels holds, and finds the frames that labels are of."""

import collections
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.films import open_film
from fume_jax.data.images import IMAGE_SUFFIXES, read_size
from fume_jax.data.labels.label import VALUES, Fault, Label, Labels, Meaning
from fume_jax.runtime.errors import UserError

# Names of splits as tools write them, and of folders for images beside files of labels.
_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_FOLDERS = ("", "images", "JPEGImages", "data", "img", "frames")


class Reading:
    """Collects labels, faults, and notes by their numbers; places in files are relative to `source`."""

    def __init__(self, source: Path, meaning: Meaning):
        self.source = source.resolve()
        self._names = VALUES | {name.strip().lower(): value for name, value in meaning.names.items()}
        self._labels, self._faults, self._notes = [], [], collections.Counter()
        self._unknown, self._films = {}, {}

    def fault(self, kind: str, place: str | Path, message: str) -> None:
        self._faults.append(Fault(kind, self.place(place), message.rstrip(".")))

    def note(self, text: str, count: int = 1) -> None:
        """Adds to the number of a note, which ends in it."""
        self._notes[text] += count

    def place(self, place: str | Path) -> str:
        return str(self.within(place)) if isinstance(place, Path) else place

    def within(self, path: Path) -> Path:
        """Returns a path relative to the source; as it is if it is elsewhere."""
        folder = self.source if self.source.is_dir() else self.source.parent
        return path.relative_to(folder) if path.is_relative_to(folder) else path

    def value(self, name: str, place: str) -> int | None:
        """Returns the value of masks that a name of the user or of `VALUES` stands for, in small or large letters.

        None if it stands for none, which becomes a fault.
        """
        value = self._names.get(name.strip().lower())
        if value is None:
            count, first = self._unknown.get(name, (0, place))
            self._unknown[name] = count + 1, first
        return value

    def size(self, image: Path, place: str, stated: tuple[int, int] | None) -> tuple[int, int] | None:
        """Returns height and width of an image seen upright, None if they are at fault or others than those stated."""
        try:
            found = read_size(image)
        except UnreadableFrame as error:
            self.fault("unreadable_file", image, str(error))
            return None
        return found if self.check_size(found, place, stated) else None

    def film_size(self, film: Path, frame: int, place: str, stated: tuple[int, int] | None) -> tuple[int, int] | None:
        """Returns height and width of a frame of a film as `size` does; None as well if the film is shorter."""
        if film not in self._films:
            self._films[film] = None, None
            try:
                opened = open_film(str(film))
                if opened is None:
                    raise UserError("is no film")
                self._films[film] = np.shape(opened.frame(0))[:2], opened.num_frames
            except (UserError, UnreadableFrame) as error:
                self.fault("unreadable_file", film, str(error))
        found, number = self._films[film]
        if found is not None and number is not None and frame >= number:
            self.fault("missing_file", place, f"{self.place(film)} has {number:,} frames; expected frame {frame} in it")
            return None
        return found if found is not None and self.check_size(found, place, stated) else None

    def check_size(self, found: tuple[int, int], place: str, stated: tuple[int, int] | None) -> bool:
        """Returns whether a frame has the size that the labels state, if they do."""
        if stated in (None, found):
            return True
        turned = ". Its labels are of the picture as it is stored, which viewers turn" if stated == found[::-1] else ""
        self.fault("size", place, f"labels of {_size(stated)} for a frame of {_size(found)}{turned}")
        return False

    def add(self, image: Path, frame_index: int, name: str, recording: str, split: str, read_mask: Callable) -> None:
        self._labels.append(Label(image, frame_index, name, recording, split, read_mask))

    def missing(self, name: str, place: str, bases: Iterable[Path]) -> None:
        where = ", ".join(dict.fromkeys(self.place(base) for base in bases))
        self.fault("missing_file", place, f"there is no image {name} in {where}, or in images/ there")

    def result(self) -> Labels:
        """Returns what was collected, with a fault for each unknown name, and each frame that has two labels."""
        accepted = ", ".join(self._names)
        for name, (count, first) in self._unknown.items():
            message = f"{name!r} is the label of {count:,} shapes; expected one of {accepted}"
            self.fault("label", first, f"{message}. --labels={name}:gas says that it stands for gas")
        frames, names = {}, {}
        for label in self._labels:
            place = self.place(label.image) + (f", frame {label.frame_index}" if label.frame_index >= 0 else "")
            if frames.setdefault((label.image, label.frame_index), label) is not label:
                self.fault("duplicate_frame", place, "has two labels; keep one")
            elif (first := names.setdefault((label.recording, label.name), label)) is not label:
                same = f"has the name of {self.place(first.image)}, {label.name!r}; rename one"
                self.fault("duplicate_frame", place, same)
        return Labels(self._labels, self._faults, [f"{text}: {count:,}" for text, count in self._notes.items()])


def split_of(*names: str) -> str:
    """Returns the split of `fume_jax.schema` that the first of some names means; "" if none does."""
    return next((_SPLITS[name.lower()] for name in names if name.lower() in _SPLITS), "")


def folder_of(name: str) -> str:
    """Returns the folder in the name of an image, "" if it has none."""
    folder = Path(name).parent.as_posix()
    return "" if folder == "." else folder


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
    paths = (base / folder / name for base in bases for folder in below for name in names)
    return next((path.parent.resolve() / path.name for path in paths if os.path.isfile(path)), None)


def _size(size):
    return f"{size[1]}x{size[0]}"
