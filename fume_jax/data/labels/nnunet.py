"""Masks in the layout of nnU-Net v2, as far as its files are images.

Layout: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md and ignore_label.md there.
"""

import collections
import dataclasses
import re
from pathlib import Path

from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.pairing import Key, pair
from fume_jax.data.matching import gas_of
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import read_json
from fume_jax.schema import IGNORE

# Names of folders in lower case, and the split of each.
IMAGES = {"imagestr": "train", "imagests": "test"}
MASKS = {"labelstr": "train", "labelsts": "test"}
FOLDERS = IMAGES.keys() | MASKS.keys()
DESCRIPTION = "dataset.json"
_KEYS = {"labels": dict, "channel_names": dict, "file_ending": str}
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def read_files(collector: Collector, files: list[Path]) -> None:
    """Reads the labels of the one data set that the files of the source are of.

    The values of the masks are those that `dataset.json` gives the names of classes, and those of the user, which count
    more. A case is a frame, of no named recording. Cases of `imagesTr` are of the split `train` if there are masks of
    `imagesTs`, which are of `test`; else they have no split, since nnU-Net takes its validation cases from them.
    """
    roots = list(dict.fromkeys(file.parents[1] for file in files if file.parent.name.lower() in FOLDERS))
    if len(roots) != 1:
        found = ", ".join(map(collector.place, roots)) or "none"
        collector.fault("layout", collector.source, f"expected imagesTr and labelsTr of one data set, found {found}")
        return
    path, meaning = roots[0] / DESCRIPTION, collector.meaning
    description = _describe(collector, path)
    if not description:
        return
    values = _values(collector, description["labels"], path)
    images, masks, further = _sort(collector, path, files, description["file_ending"])
    _check_channels(collector, description, further, path)
    pair(collector, images, masks, dataclasses.replace(meaning, values=values | dict(meaning.values)))
    labelled = sum(key.split != "test" for key in masks)
    place = collector.place(path)
    if description.get("numTraining", labelled) != labelled:
        collector.note(f"{place} counts {description['numTraining']} cases, labelsTr holds {labelled}")
    if meaning.values:
        collector.note(f"values mean what --values says; others, what {place} says")


def _describe(collector, path):
    """Returns the content of a description that has all keys; None if it is at fault."""
    if not path.is_file():
        collector.fault("missing_file", path, "there is no such file; it says what the values of the masks are")
        return None
    try:
        description = read_json(path)
    except UserError as error:
        collector.fault("unreadable_file", path, str(error))
        return None
    faults = [
        f"{key} is missing, or no {kind.__name__}; nnU-Net v2 writes it by generate_dataset_json; v1 has other keys"
        for key, kind in _KEYS.items()
        if not isinstance(description.get(key), kind)
    ]
    if "dataset" in description:
        faults.append("dataset lists files elsewhere, which is not read; copy them to imagesTr")
    ending = description.get("file_ending")
    if isinstance(ending, str) and ending.lower() not in IMAGE_SUFFIXES:
        remedy = "save frames and masks as PNG, as ITK-SNAP, 3D Slicer, or nibabel with Pillow do, and name that ending"
        faults.append(f"files of {ending} are not read, those of {', '.join(IMAGE_SUFFIXES)} are; {remedy}")
    for message in faults:
        collector.fault("layout", path, message)
    return None if faults else description


def _values(collector, labels, path):
    """Returns the values of masks by the values in the files, but for those that the user has listed."""
    listed, values = collector.meaning.values, {}
    for name, value in labels.items():
        if all(one in [*listed] for one in (value if isinstance(value, list) else [value])):
            continue
        if isinstance(value, list):
            message = f"{name!r} is the region of the values {value}; expected one value for each class"
        elif type(value) is not int:
            message = f"{name!r} has the value {value!r}; expected a whole number, as nnU-Net v2 has NAME: VALUE"
        elif value in values:
            message = f"{name!r} has the value {value}, which another name has, too"
        else:
            known = collector.value(name, path)
            values[value] = IGNORE if known is None else known
            continue
        collector.fault("label", path, message)
    if values and not listed and labels.get("ignore", max(values)) != max(values):
        collector.fault("label", path, f"ignore is {labels['ignore']}; nnU-Net has it as the highest value")
    return values


def _sort(collector, path, files, ending):
    """Returns images and masks by key, and the images of further channels."""
    images, masks, further = collections.defaultdict(list), collections.defaultdict(list), []
    tested = any(file.parent.name.lower() == "labelsts" for file in files)
    for file in files:
        folder, name = file.parent.name.lower(), file.name.removesuffix(ending)
        split = {**IMAGES, **MASKS}.get(folder, "")
        split = split if tested or split == "test" else ""
        channel = _CHANNEL.fullmatch(name)
        if folder not in FOLDERS or not file.name.endswith(ending):
            if file != path:
                collector.count(f"files of {file.suffix or file.name}, neither images nor masks, not read", file)
        elif folder in MASKS:
            masks[Key(split, "", name)].append(file)
        elif channel is None:
            message = f"expected the number of the channel at the end of the name, as in CASE_0000{ending}"
            collector.fault("layout", file, message)
        elif int(channel["channel"]):
            further.append(file)
        else:
            images[Key(split, "", channel["case"])].append(file)
    return images, masks, further


def _check_channels(collector, description, further, path):
    """Adds a fault if cases have several images, which share a mask."""
    names = description["channel_names"].values()
    gases = {gas_of(str(name)) for name in names} - {None}
    if further or len(gases) > 1:
        message = f"the channels {', '.join(map(str, names))} of a case share one mask"
        remedy = "expected a mask for each frame: make a data set for each gas, with its masks"
        example = f", such as {collector.place(further[0])}" if further else ""
        collector.fault("layout", path, f"{message}{example}; {remedy if len(gases) > 1 else 'expected one channel'}")
