"""Labelled frames, whatever the format they come from; each format has a module beside this one."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.schema import IGNORE, MASK_CLASSES, NOT_GAS

# Values of masks by the names that users give them.
VALUES = {name: value for value, name in enumerate(MASK_CLASSES)} | {"ignore": IGNORE, "not_gas": NOT_GAS}
NAMES = {value: name for name, value in VALUES.items()}
# Explains the word CLASS in messages.
CHOICES = f"where CLASS is one of {', '.join(VALUES)}"


@dataclasses.dataclass(frozen=True)
class Label:
    """A labelled frame.

    Attributes:
      image: file of the frame, or film that it is of.
      frame_index: position in the film, from 0; -1 if the file is the frame.
      name: name of the frame without suffix, unique in its recording.
      recording: folder or film that the frame is of, as the format names it; "" if the format does not say.
      split: `train`, `val` or `test`; "" if the format does not say.
      read_mask: reads the mask, uint8 [H, W] of the values in `fume_jax.schema`; raises UnreadableFrame.
    """

    image: Path
    frame_index: int
    name: str
    recording: str
    split: str
    read_mask: Callable[[], np.ndarray]


def place_of(label: Label, source: Path) -> str:
    """Names the frame of a label below the folder of the source, for messages."""
    path = path_below(label.image, source)
    return path if label.frame_index < 0 else f"{path}, frame {label.frame_index}"


def path_below(path: Path, folder: Path) -> str:
    """Returns a path relative to a folder; as it is if it is elsewhere."""
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()


@dataclasses.dataclass(frozen=True)
class Fault:
    """Something that cannot be imported or prepared, or a warning.

    `kind` says in a word what is wrong, `place` in which file and where in it, and `message` what was expected.
    """

    kind: str
    place: str
    message: str


@dataclasses.dataclass(frozen=True)
class Labels:
    """What a folder of labels holds.

    `faults` forbid the import; `notes` say what was left out, converted or guessed.
    """

    labels: list[Label]
    faults: list[Fault]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class Meaning:
    """Says which class a value, a colour or a name in the labels stands for; they map to values of masks.

    `nearest` takes the nearest value or colour for one that is not listed, as compression with loss and interpolation
    leave them.
    """

    values: Mapping[int, int]
    colors: Mapping[tuple[int, int, int], int]
    names: Mapping[str, int]
    nearest: bool = False


class UnusableMask(UnreadableFrame):
    """Signals a mask that holds no classes for certain; `kind` is that of the fault, the message gives the reason."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
