"""Reads a prepared dataset of paired frames through TFDS, by random access and without TensorFlow."""

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES, SPLITS

PIXEL_KEYS = tuple(f"{gas}_{kind}" for gas in GASES for kind in ("frame", "mask"))
OTHER_KEYS = ("modality_mask", "label", "recording_index")
# Bytes at the end of a file of examples that tell it from others: they hold the place of every compressed example.
FOOTER_BYTES = 256 << 10


class Dataset:
    """Gives random access to the examples of a folder `NAME/CONFIG/VERSION` that TFDS prepared.

    Attributes:
      name: full name of the dataset.
      bounds: scores that bound the task on this dataset, by name; empty if the dataset states none.
      leak: description of data that the splits share and should not; empty if they share none.
    """

    def __init__(self, path: str):
        """Opens the folder; UserError if it holds no dataset of paired frames."""
        import tensorflow_datasets as tfds  # takes seconds, so only where data are read

        if not (Path(path) / "dataset_info.json").is_file():
            below = [str(info.parent) for info in Path(path).glob("*/dataset_info.json")]
            raise UserError(
                f"There is no prepared dataset in {path!r}{f'; did you mean {below[-1]}' if below else ''}. Render the "
                "embedded one with\n  python -m datasets.synthetic_ogi --data_dir=data --name=demo\n"
                "prepare your own recordings with python -m datasets.fume_ogi, or name the folder that holds "
                "dataset_info.json: --config.data.path=DIR to train, --data=DIR to evaluate."
            )
        self._builder = tfds.builder_from_directory(path)
        self.name: str = self._builder.info.full_name
        missing = {*PIXEL_KEYS, *OTHER_KEYS} - set(self._builder.info.features)
        if missing:
            raise UserError(f"The dataset in {path!r} holds no paired frames; it lacks {', '.join(sorted(missing))}.")
        self.splits: list[str] = list(self._builder.info.splits)
        if not set(SPLITS) <= set(self.splits):
            splits = ", ".join(self.splits)
            raise UserError(f"The dataset in {path!r} has the splits {splits}; expected {', '.join(SPLITS)}.")
        metadata = self._builder.info.metadata or {}
        self.bounds: dict[str, float] = dict(metadata.get("bounds", {}))
        self.leak: str = metadata.get("leak", "")

    def split(self, name: str) -> Sequence[dict]:
        """Returns random access to the examples of a split, pixels uint8; UserError if there is no such split."""
        self._check_split(name)
        return self._builder.as_data_source(split=name)

    def labels(self, name: str) -> np.ndarray:
        """Returns the class of every example of a split, int [N], without decoding pixels."""
        import tensorflow_datasets as tfds

        self._check_split(name)
        without_pixels = {key: tfds.decode.SkipDecoding() for key in PIXEL_KEYS}
        source = self._builder.as_data_source(split=name, decoders=without_pixels)
        return np.array([example["label"] for example in source])

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the examples. The folder of the dataset does not change it, other data do.

        The builders of this project store one of all pixels and values. For other datasets it is computed from the
        sizes and ends of the files, and changes also when the same data are prepared anew.
        """
        info = self._builder.info
        contents = [(name, list(split.shard_lengths)) for name, split in info.splits.items()]
        digest = hashlib.blake2b(digest_size=16)
        stored = (info.metadata or {}).get("digest")
        digest.update(json.dumps([info.features.to_json(), contents, stored], sort_keys=True).encode())
        for path in () if stored else sorted(Path(self._builder.data_dir).glob(f"*.{info.file_format.file_suffix}*")):
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - FOOTER_BYTES))
                digest.update(f"{path.name} {size}".encode() + file.read())
        return digest.hexdigest()

    def _check_split(self, name):
        if name not in self.splits:
            raise UserError(f"The dataset has no split {name!r}; it has {', '.join(self.splits)}.")
