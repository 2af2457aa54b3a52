"""Masks in the layout of nnU-Net v2, as far as its files are images.

Layout: https://github.com/MIC-DKFZ/nnUNet/blob/master/documentation/dataset_format.md and ignore_label.md there.
"""

import collections
import dataclasses
import json
import re
from pathlib import Path

from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.labels.label import Fault, Labels, Meaning
from fume_jax.data.labels.pairing import Key, not_read, pair, unknown_name
from fume_jax.data.matching import gas_of

# Names of folders in lower case, and the split of each.
IMAGES = {"imagestr": "train", "imagests": "test"}
MASKS = {"labelstr": "train", "labelsts": "test"}
FOLDERS = IMAGES.keys() | MASKS.keys()
DESCRIPTION = "dataset.json"
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


def read(source: Path, files: list[Path], meaning: Meaning) -> Labels:
    """Reads the labels of one data set below `source`; `files` are relative to it.

    The values of the masks are those that `dataset.json` gives the names of classes, unless `meaning` lists values. A
    case is a frame, of no named recording. Cases of `imagesTr` are of the split `train` if there are masks of
    `imagesTs`, which are of `test`; else they have no split, since nnU-Net takes its validation cases from them.
    """
    roots = sorted({file.parents[1] for file in files if file.parent.name.lower() in FOLDERS})
    if len(roots) != 1:
        message = f"expected imagesTr and labelsTr of one data set, found {', '.join(map(str, roots)) or 'none'}"
        return Labels([], [Fault("layout", str(source), message)], [])
    (root,) = roots
    place = (root / DESCRIPTION).as_posix()
    description, faults = _describe(source / root / DESCRIPTION, place)
    if faults:
        return Labels([], faults, [])
    ending = description["file_ending"]
    if ending.lower() not in IMAGE_SUFFIXES:
        message = f"files of {ending} are not read, those of {', '.join(IMAGE_SUFFIXES)} are"
        remedy = "save frames and masks as PNG, as ITK-SNAP, 3D Slicer, or nibabel with Pillow do, and name that ending"
        return Labels([], [Fault("format", place, f"{message}; {remedy}")], [])
    values, faults = _values(description["labels"], meaning, place)
    meaning = dataclasses.replace(meaning, values=meaning.values or values)
    images, masks, unnumbered, further, rest = _sort(root, files, ending)
    faults += _channel_faults(description, further, place)
    message = f"expected the number of the channel at the end of the name, as in CASE_0000{ending}"
    faults += [Fault("name", file.as_posix(), message) for file in unnumbered]
    found = pair(source, images, masks, meaning)
    labelled = sum(key.split != "test" for key in masks)
    notes = [*found.notes, *not_read(rest)]
    if description.get("numTraining", labelled) != labelled:
        notes.append(f"{place} counts {description['numTraining']} cases, labelsTr holds {labelled}")
    if meaning.values is not values:
        notes.append(f"values mean what --values says, not what {place} says")
    return Labels(found.labels, faults + found.faults, notes)


def _describe(path, place):
    """Returns the content of a description that has all keys, and the faults that it has."""
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, [Fault("missing_file", place, "there is no such file; it says what the values of the masks are")]
    except (OSError, ValueError, RecursionError) as error:
        return {}, [Fault("format", place, f"no JSON file ({error})")]
    expected = {"labels": dict, "channel_names": dict, "file_ending": str}
    if not isinstance(description, dict):
        return {}, [Fault("format", place, f"expected an object of {', '.join(expected)}")]
    wrong = [key for key, kind in expected.items() if not isinstance(description.get(key), kind)]
    remedy = "nnU-Net v2 writes it by generate_dataset_json; v1 has other keys"
    faults = [Fault("format", place, f"{key} is missing, or no {expected[key].__name__}; {remedy}") for key in wrong]
    if "dataset" in description:
        faults.append(Fault("format", place, "dataset lists files elsewhere, which is not read; copy them to imagesTr"))
    return description, faults


def _values(labels, meaning, place):
    """Returns the values of masks by the values in the files, and the faults."""
    values, faults = {}, []
    for name, value in labels.items():
        if isinstance(value, list):
            message = f"{name!r} is the region of the values {value}; expected one value for each class"
            faults.append(Fault("label", place, message))
        elif isinstance(value, bool) or not isinstance(value, int):
            message = f"{name!r} has the value {value!r}; expected a whole number, as nnU-Net v2 has NAME: VALUE"
            faults.append(Fault("label", place, message))
        elif value in values:
            faults.append(Fault("label", place, f"{name!r} has the value {value}, which another name has, too"))
        elif name.lower() not in meaning.names:
            faults.append(unknown_name(name, labels, meaning, place))
        else:
            values[value] = meaning.names[name.lower()]
    numbers = [value for value in labels.values() if isinstance(value, int)]
    if numbers and labels.get("ignore", max(numbers)) != max(numbers):
        faults.append(Fault("label", place, f"ignore is {labels['ignore']}; nnU-Net has it as the highest value"))
    return values, faults


def _sort(root, files, ending):
    """Returns images and masks by key, images without a channel, those of further channels, and what is neither."""
    images, masks = collections.defaultdict(list), collections.defaultdict(list)
    unnumbered, further, rest = [], [], []
    tested = any(file.parent.name.lower() == "labelsts" for file in files)
    for file in files:
        folder, name = file.parent.name.lower(), file.name.removesuffix(ending)
        channel = _CHANNEL.fullmatch(name)
        split = {**IMAGES, **MASKS}.get(folder, "")
        split = split if tested or split == "test" else ""
        if folder not in FOLDERS or not file.name.endswith(ending):
            rest += [file] * (file != root / DESCRIPTION)
        elif folder in MASKS:
            masks[Key(split, "", name)].append(file)
        elif channel is None:
            unnumbered.append(file)
        elif int(channel["channel"]):
            further.append(file)
        else:
            images[Key(split, "", channel["case"])].append(file)
    return images, masks, unnumbered, further, rest


def _channel_faults(description, further, place):
    """Returns a fault if cases have several images, which share a mask."""
    names = description["channel_names"].values()
    gases = {gas_of(str(name)) for name in names} - {None}
    if not further and len(gases) < 2:
        return []
    message = f"the channels {', '.join(map(str, names))} of a case share one mask"
    remedy = "expected a mask for each frame: make a data set for each gas, with its masks" if len(gases) > 1 else ""
    example = f", such as {further[0].as_posix()}" if further else ""
    return [Fault("channels", place, f"{message}{example}; {remedy or 'expected one channel'}")]
