"""Collects what a source of labels holds: labels, faults and notes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.films import open_film
from fume_jax.data.images import read_size
from fume_jax.data.labels.finding import list_files, natural_path
from fume_jax.data.labels.label import CHOICES, VALUES, Fault, Label, Labels, Meaning
from fume_jax.data.labels.pixels import MaskFile
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import read_json

# What to do about labels of another size than their frame.
SIZE_REMEDY = "use the image that was labelled, or scale the labels to its size, a mask by the nearest neighbour"


class Collector:
    """Collects labels, faults and notes, while a format reads its files; `result` returns them.

    A place is a path, which is told relative to `source`, or a text that says where in a file.
    """

    def __init__(self, source: Path, meaning: Meaning):
        self.source, self.meaning = source.resolve(), meaning
        self._names = VALUES | {name.strip().lower(): value for name, value in meaning.names.items()}
        self._labels, self._faults, self._notes = [], [], {}
        self._unknown, self._films = {}, {}

    def fault(self, kind: str, place: str | Path, message: str) -> None:
        self._faults.append(Fault(kind, self.place(place), message.rstrip(".")))

    def note(self, text: str) -> None:
        self._notes[text] = None

    def count(self, text: str, example: str | Path, number: int = 1) -> None:
        """Adds to the number in which a note ends; the place of the first example is told."""
        before, first = self._notes.get(text, (0, example))
        self._notes[text] = before + number, first

    def read_json_files(self) -> Iterator[tuple[Path, object]]:
        """Yields the JSON files of the source and what they hold; those that cannot be read become faults."""
        for path in list_files(self.source, (".json",)):
            try:
                yield path, read_json(path, object)
            except UserError as error:
                self.fault("unreadable_file", path, str(error))

    def place(self, place: str | Path) -> str:
        if isinstance(place, str):
            return place
        within = self.within(place)
        return str(self.source) if within == Path() else within.as_posix()

    def within(self, path: Path) -> Path:
        """Returns a path relative to the source; as it is if it is elsewhere."""
        folder = self.source if self.source.is_dir() else self.source.parent
        return path.relative_to(folder) if path.is_relative_to(folder) else path

    def value(self, name: str, place: str | Path) -> int | None:
        """Returns the value of masks that a name of the user or of `VALUES` stands for, in small or large letters.

        None if it stands for none, which becomes a fault.
        """
        value = self._names.get(name.strip().lower())
        if value is None:
            count, first = self._unknown.get(name, (0, place))
            self._unknown[name] = count + 1, first
        return value

    def size(self, image: Path, place: str | Path, stated: tuple[int, int] | None = None) -> tuple[int, int] | None:
        """Returns height and width of an image seen upright, None if they are at fault or others than those stated."""
        try:
            found = read_size(image)
        except UnreadableFrame as error:
            self.fault("unreadable_file", image, str(error))
            return None
        return found if self._has_size(found, place, stated) else None

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
        return found if found is not None and self._has_size(found, place, stated) else None

    def _has_size(self, found, place, stated):
        if stated in (None, found):
            return True
        turned = ". Its labels are of the picture as it is stored, which viewers turn" if stated == found[::-1] else ""
        self.fault("size", place, f"labels of {_size(stated)} for a frame of {_size(found)}{turned}; {SIZE_REMEDY}")
        return False

    def missing(self, name: str, place: str | Path, bases: Iterable[Path]) -> None:
        """Adds the fault of an image that `find_image` did not find."""
        where = ", ".join(dict.fromkeys(map(self.place, bases)))
        remedy = "export the labels with their images, or copy the images there"
        self.fault("missing_file", place, f"there is no image {name} in {where}, or in images/ there; {remedy}")

    def add(self, image: Path, frame_index: int, name: str, recording: str, split: str, read_mask: Callable) -> None:
        self._labels.append(Label(image, frame_index, name, recording, split, read_mask))

    def add_mask_file(self, image: Path, mask: Path, name: str, recording: str, split: str, meaning: Meaning) -> None:
        """Adds an image and its mask, another image, if both can be read and are of one size."""
        stated = self.size(mask, mask)
        if stated and self.size(image, mask, stated):
            self.add(image, -1, name, recording, split, MaskFile(mask, meaning))

    def result(self) -> Labels:
        """Returns what was collected, the labels in the natural order of their places.

        Each unknown name becomes a fault, and so does each frame that is there twice, or has the name of another one
        of its recording.
        """
        for name, (count, first) in self._unknown.items():
            times = f", which is there {count:,} times" if count > 1 else ""
            remedy = f"say it by --labels={name}:CLASS, {CHOICES}"
            self.fault("label", first, f"nobody says what {name!r} is{times}; {remedy}")
        frames, names = {}, {}
        for label in self._labels:
            frame, name = (label.image.resolve(), label.frame_index), (label.recording, label.name)
            place = self.place(label.image) + (f", frame {label.frame_index}" if label.frame_index >= 0 else "")
            if (first := frames.setdefault(frame, label)) is not label:
                splits = f": in {label.split} and in {first.split}" if label.split != first.split else ""
                self.fault("duplicate", place, f"has two labels{splits}; keep one")
            elif (first := names.setdefault(name, label)) is not label:
                same = f"has the name of {self.place(first.image)}, {label.name!r}, in the same recording; rename one"
                self.fault("duplicate", place, same)
        labels = sorted(self._labels, key=lambda label: (natural_path(self.within(label.image)), label.frame_index))
        return Labels(labels, self._faults, [self._told(text) for text in self._notes])

    def _told(self, text):
        """Returns a note with its number and its example, if it has them."""
        number, example = self._notes[text] or (None, None)
        return text if number is None else f"{text}: {number:,} (such as {self.place(example)})"


def _size(size):
    return f"{size[1]}x{size[0]}"
