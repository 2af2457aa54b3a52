"""Layouts of other programs: where they have images and labels, what a label file holds, and how they are described.

- nnU-Net v2: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md and ignore_label.md there
- Ultralytics: https://docs.ultralytics.com/datasets/segment
- mmsegmentation: https://mmsegmentation.readthedocs.io/en/latest/advanced_guides/add_datasets.html
"""

import dataclasses
import json
import re
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from fume_jax.data.cases import Case
from fume_jax.data.labels.shapes import regions, to_polygons
from fume_jax.schema import BACKGROUND, IGNORE, MASK_CLASSES, NOT_GAS

# The highest of consecutive labels, as nnU-Net demands of the one that it ignores.
NNUNET_IGNORE = len(MASK_CLASSES)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of a program.

    Attributes:
      image, label: relative path of the image and of the label file of a frame.
      encode: content of the label file of a mask, uint8 [H, W] of the values in `fume_jax.schema`.
      describe: texts of further files by their relative path, from all frames and whether any has unknown pixels.
      unknown: what becomes of pixels of unknown class, the end of a sentence.
      advice: what else the user should know, from the name of the folder.
    """

    image: Callable[[Case], str]
    label: Callable[[Case], str]
    encode: Callable[[np.ndarray], bytes]
    describe: Callable[[Sequence[Case], bool], dict[str, str]]
    unknown: str
    advice: Callable[[str], str]


def png(picture: np.ndarray) -> bytes:
    """Returns a grey picture, uint8 [H, W] or [H, W, 1], as a PNG file."""
    return cv2.imencode(".png", picture)[1].tobytes()


def _nnunet_mask(mask):
    values = _without_not_gas(mask)
    return png(np.where(mask == IGNORE, np.uint8(NNUNET_IGNORE), values))


def _nnunet_path(kind, ending):
    return lambda case: f"{kind}{'Ts' if case.split == 'test' else 'Tr'}/{case.name}{ending}"


def _describe_nnunet(cases, has_unknown):
    names = {split: [case.name for case in cases if case.split == split] for split in ("train", "val")}
    labels = {name: value for value, name in enumerate(MASK_CLASSES)}
    description = {
        "channel_names": {"0": "infrared"},
        "labels": labels | ({"ignore": NNUNET_IGNORE} if has_unknown else {}),
        "numTraining": sum(map(len, names.values())),
        "file_ending": ".png",
    }
    return {
        "dataset.json": json.dumps(description, indent=2) + "\n",
        "splits_final.json": json.dumps([names], indent=2) + "\n",
    }


def _advise_nnunet(folder):
    fold = (
        "Copy splits_final.json into the folder of the data set in nnUNet_preprocessed once nnU-Net has made it, and "
        "train fold 0: train and val are its training and validation cases."
    )
    if re.fullmatch(r"Dataset\d{3}_.+", folder):
        return fold
    return f"{fold}\nnnU-Net finds a data set by the name of its folder, such as Dataset501_Plumes; rename {folder}."


def _yolo_outlines(mask):
    """Returns a row for each connected part of tube and of gas: the number of the class and x, y from 0 to 1."""
    height, width = mask.shape
    rows = []
    for value, region in regions(_without_not_gas(mask)).items():
        for outline in to_polygons(region) if value != IGNORE else ():
            numbers = (outline / (width, height)).ravel()
            rows.append(" ".join([str(value - 1), *(f"{number:.6g}" for number in numbers)]))
    return "".join(f"{row}\n" for row in rows).encode()


def _describe_yolo(cases, has_unknown):
    # Without a path the folder of the file is that of the images.
    lines = [f"{split}: images/{split}" for split in ("train", "val", "test")]
    classes = [f"  {value - 1}: {name}" for value, name in enumerate(MASK_CLASSES) if value != BACKGROUND]
    return {"data.yaml": "\n".join([*lines, "names:", *classes]) + "\n"}


def _without_not_gas(mask):
    return np.where(mask == NOT_GAS, np.uint8(BACKGROUND), mask)


def _by_split(kind, ending):
    return lambda case: f"{kind}/{case.split}/{case.name}{ending}"


LAYOUTS = {
    "nnunet": Layout(
        image=_nnunet_path("images", "_0000.png"),
        label=_nnunet_path("labels", ".png"),
        encode=_nnunet_mask,
        describe=_describe_nnunet,
        unknown=f"have the label ignore, {NNUNET_IGNORE}",
        advice=_advise_nnunet,
    ),
    "yolo": Layout(
        image=_by_split("images", ".png"),
        label=_by_split("labels", ".txt"),
        encode=_yolo_outlines,
        describe=_describe_yolo,
        unknown="are background, since outlines cannot leave pixels open",
        advice=lambda folder: (
            "Outlines follow the pixels exactly; a line that goes there and back joins a hole to its outline. Each "
            "connected part of a plume or a tube is an object of its own. YOLO learns coarser masks (mask_ratio), and "
            "predicts objects: paint them into PNG masks to have them scored."
        ),
    ),
    "mmseg": Layout(
        image=_by_split("img_dir", ".png"),
        label=_by_split("ann_dir", ".png"),
        encode=lambda mask: png(_without_not_gas(mask)),
        describe=lambda cases, has_unknown: {},
        unknown=f"are {IGNORE}, the ignore_index",
        advice=lambda folder: (
            f"Set classes={MASK_CLASSES} and reduce_zero_label=False: 0 is background, which is learned as well."
        ),
    ),
}
