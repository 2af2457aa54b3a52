"""Pairs images with masks of the same name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fume_jax.data.labels.collector import Collector
from fume_jax.data.labels.finding import split_of
from fume_jax.data.labels.label import Meaning


class Key(NamedTuple):
    """Names a frame; of an image and its mask the keys are equal."""

    split: str
    recording: str
    name: str


def key_of(folders: Sequence[str], name: str) -> Key:
    """Returns the key of a frame by the folders that it is in; the first one may name the split."""
    split = split_of(*folders[:1])
    return Key(split, "/".join(folders[1:] if split else folders), name)


def pair(
    collector: Collector, images: Mapping[Key, list[Path]], masks: Mapping[Key, list[Path]], meaning: Meaning
) -> None:
    """Adds the images that have a mask. Masks without an image are faults; images without a mask are left out."""
    for key in dict.fromkeys([*images, *masks]):
        of_images, of_masks = images.get(key, []), masks.get(key, [])
        for files, noun in ((of_images, "image"), (of_masks, "mask")):
            if len(files) > 1:
                names = " and ".join(map(collector.place, files[1:]))
                collector.fault("duplicate", files[0], f"{names}: another {noun} of the same frame; keep one")
        if not of_images:
            message = f"there is no image of this mask; expected one with the name {key.name}"
            collector.fault("missing_file", of_masks[0], message)
        elif not of_masks:
            collector.count("images without a mask, left out", of_images[0])
        elif len(of_images) == len(of_masks) == 1:
            collector.add_mask_file(of_images[0], of_masks[0], key.name, key.recording, key.split, meaning)
