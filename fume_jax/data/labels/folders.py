"""Masks in folders of images: a folder for images and one for masks, mmsegmentation, and nnU-Net."""

import collections
import re
from pathlib import Path

from fume_jax.data.images import IMAGE_SUFFIXES
from fume_jax.data.labels import nnunet
from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import list_files
from fume_jax.data.labels.label import Labels, Meaning
from fume_jax.data.labels.pairing import key_of, pair
from fume_jax.schema import SPLITS

# Names of folders in lower case; `img_dir` and `ann_dir` are those of mmsegmentation.
IMAGES = {"images", "image", "imgs", "img", "frames", "frame"}
MASKS = {"masks", "mask", "labels", "label", "annotations", "annotation", "ann", "anns"}
MMSEG_IMAGES, MMSEG_MASKS = {"img_dir"}, {"ann_dir"}
ROLES = IMAGES | MASKS | MMSEG_IMAGES | MMSEG_MASKS
EXPECTED = (
    "expected RECORDING/images/NAME.png and RECORDING/masks/NAME.png, images/RECORDING and masks/RECORDING, NAME.png "
    "beside NAME_mask.png, img_dir/train and ann_dir/train of mmsegmentation, or imagesTr and labelsTr of nnU-Net v2"
)
# Folders that a layout is known by.
LAYOUTS = {
    "nnU-Net v2": nnunet.FOLDERS,
    "mmsegmentation": MMSEG_IMAGES | MMSEG_MASKS,
    "folders of images and masks": IMAGES | MASKS,
}
# The name of a mask beside its image.
_AFFIX = re.compile(r"masks?[-_. ](?P<after>.+)|(?P<before>.+)[-_. ]masks?", re.IGNORECASE)


def read(source: Path, meaning: Meaning) -> Labels:
    """Reads labels that are masks in image files, in one of three layouts, which a note names.

    Folders of images and masks: a folder for each, below the recording or above it, in any case and by the names in
    `IMAGES` and `MASKS`, or one folder for both. Image and mask have one name, to which that of the mask may have
    `_mask` or `mask_` added. The other folders on the way name the recording; the first one names the split if it is
    such as `train`, see `finding.split_of`.

    mmsegmentation has the same by the names `img_dir` and `ann_dir`
    (https://mmsegmentation.readthedocs.io/en/latest/advanced_guides/add_datasets.html). Its ignored value is 255, as
    here; whether the value 0 was to be ignored, `reduce_zero_label`, its files do not say.

    nnU-Net v2: see `nnunet`.
    """
    collector = Collector(source, meaning)
    files = list_files(collector.source) if source.is_dir() else []
    folders = {part.lower() for file in files for part in collector.within(file).parts[:-1]}
    layouts = [layout for layout, names in LAYOUTS.items() if folders & names] or [list(LAYOUTS)[-1]]
    if not files:
        collector.fault("layout", collector.source, f"no folder, or an empty one; {EXPECTED}")
    elif len(layouts) > 1:
        message = f"holds {' and '.join(layouts)}; expected one of them: name the folder of one"
        collector.fault("layout", collector.source, message)
    else:
        collector.note(f"{source} is read as {layouts[0]}")
        read_layout = nnunet.read_files if layouts[0] == "nnU-Net v2" else _read_files
        read_layout(collector, files)
    return collector.result()


def _read_files(collector, files):
    images, masks = collections.defaultdict(list), collections.defaultdict(list)
    for file in files:
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            collector.count(f"files of {file.suffix or file.name}, neither images nor masks, not read", file)
            continue
        key, is_mask, has_affix = _role(collector.within(file))
        (masks if is_mask else images)[key].append(file)
        if has_affix:
            collector.count("masks known by their names", file)
    if not images or not masks:
        message = f"holds {len(images)} images and {len(masks)} masks; {EXPECTED}"
        collector.fault("layout", collector.source, message)
        return
    pair(collector, images, masks, collector.meaning)
    if splits := sorted({key.split for key in images if key.split}, key=SPLITS.index):
        collector.note(f"splits are taken from the folders: {', '.join(splits)}")


def _role(file):
    """Returns the key of an image or a mask, whether it is a mask, and whether its name says so."""
    parts = list(file.parts[:-1])
    named = [number for number, part in enumerate(parts) if part.lower() in ROLES]
    is_mask = bool(named) and parts.pop(named[-1]).lower() in MASKS | MMSEG_MASKS
    affix = _AFFIX.fullmatch(file.stem)
    name = (affix["after"] or affix["before"]) if affix else file.stem
    return key_of(parts, name), is_mask or bool(affix), bool(affix)
