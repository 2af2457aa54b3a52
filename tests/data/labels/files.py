"""Files of labels in the layouts that their tools publish."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from fume_jax.data.labels.label import VALUES, Meaning

MEANING = Meaning({}, {}, VALUES)
MASK = np.zeros((6, 8), np.uint8)
MASK[0, :5], MASK[2:5, 2:7] = 1, 2


def write(folder, files):
    """Writes files by their path: texts, JSON of dicts, masks of arrays, and frames of None."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, dict):
            path.write_text(json.dumps(content))
        else:
            Image.fromarray(np.full(MASK.shape, 90, np.uint8) if content is None else content).save(path)
    return folder


def listed(labels, folder):
    """Image, name, recording and split of each label."""
    return [
        (label.image.relative_to(folder).as_posix(), label.name, label.recording, label.split)
        for label in labels.labels
    ]


def faults(labels):
    """Kind and place of each fault."""
    return [(fault.kind, fault.place) for fault in labels.faults]


def one_fault(labels) -> tuple[str, str, str]:
    """The kind, the place and the message of the only fault."""
    (fault,) = labels.faults
    return fault.kind, Path(fault.place).as_posix(), fault.message
