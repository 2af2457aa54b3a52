"""Reads a prepared dataset of paired frames through TFDS, by random access and without TensorFlow."""

import bisect
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import read_json
from fume_jax.schema import CLASSES, GASES, SPLITS

PIXEL_KEYS = tuple(f"{gas}_{kind}" for gas in GASES for kind in ("frame", "mask"))
OTHER_KEYS = ("modality_mask", "label", "recording_index")
# Bytes at the end of a file of examples that tell it from others: they hold the place of every compressed example.
FOOTER_BYTES = 256 << 10
# Files that are opened at once when a split is opened.
OPENED_AT_ONCE = 16
# Classes of features that a dataset may name: those of TFDS. It would import whatever module another one names.
_FEATURE_CLASS = re.compile(r"tensorflow_datasets\.core\.features\.\w+\.\w+")
_REMEDY = "Prepare the dataset again, or copy it again from where it came."


class Dataset:
    """Gives random access to the examples of a folder `NAME/CONFIG/VERSION` that TFDS prepared.

    Every error about the files is a UserError that names the file, also in threads and in worker processes.

    Attributes:
      name: full name of the dataset.
      size: height and width of the stored frames.
      bounds: scores that bound the task on this dataset, by name; empty if the dataset states none.
      leak: description of data that the splits share and should not; empty if they share none.
    """

    def __init__(self, path: str):
        """Opens the folder; UserError if it holds no dataset of paired frames, or a damaged one."""
        folder = Path(path)
        check_path(folder)
        if not (folder / "dataset_info.json").is_file():
            below = [str(info.parent) for info in folder.glob("*/dataset_info.json")]
            raise UserError(
                f"There is no prepared dataset in {path!r}{f'; did you mean {below[-1]}' if below else ''}. Render the "
                "embedded one with\n  python -m datasets.synthetic_ogi --data_dir=data --name=demo\n"
                "prepare your own recordings with python -m datasets.fume_ogi, or name the folder that holds "
                "dataset_info.json: --config.data.path=DIR to train, --data=DIR to evaluate."
            )
        self._builder = _open_builder(folder)
        self.name: str = self._builder.info.full_name
        self.splits: list[str] = list(self._builder.info.splits)
        if not set(SPLITS) <= set(self.splits):
            splits = ", ".join(self.splits) or "none"
            raise UserError(f"The dataset in {path!r} has the splits {splits}; expected {', '.join(SPLITS)}.")
        _check_features(path, self._builder.info.features)
        self.size: tuple[int, int] = self._builder.info.features["co2_frame"].shape[:2]
        metadata = _metadata(folder)
        self.bounds: dict[str, float] = metadata.get("bounds", {})
        self.leak: str = metadata.get("leak", "")
        self._stored_digest: str | None = metadata.get("digest")

    def split(self, name: str) -> Sequence[dict]:
        """Returns random access to the examples of a split, pixels uint8; UserError if there is no such split."""
        return self._examples(name)

    def labels(self, name: str) -> np.ndarray:
        """Returns the class of every example of a split, int [N], without decoding pixels."""
        return self.values(name, ("label",))["label"]

    def values(self, name: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns values other than pixels of every example of a split by their keys, [N, ...], in one pass."""
        rows = [[example[key] for key in keys] for example in self.without_pixels(name)]
        return {key: np.array([row[i] for row in rows]) for i, key in enumerate(keys)}

    def without_pixels(self, name: str) -> Sequence[dict]:
        """Returns random access to the examples of a split, whose pixels are not decoded; UserError as `split`."""
        import tensorflow_datasets as tfds

        return self._examples(name, decoders={key: tfds.decode.SkipDecoding() for key in PIXEL_KEYS})

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the examples. The folder of the dataset does not change it, other data do.

        The builders of this project store one of all pixels and values. For other datasets it is computed from the
        sizes and ends of the files, and changes also when the same data are prepared anew.
        """
        info = self._builder.info
        contents = [(name, list(split.shard_lengths)) for name, split in info.splits.items()]
        digest = hashlib.blake2b(digest_size=16)
        stored = [info.features.to_json(), contents, self._stored_digest]
        digest.update(json.dumps(stored, sort_keys=True).encode())
        for path, _ in () if self._stored_digest else itertools.chain(*map(self._shards, self.splits)):
            with path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - FOOTER_BYTES))
                digest.update(f"{path.name} {size}".encode() + file.read())
        return digest.hexdigest()

    @functools.cache  # noqa: B019, the dataset is as long in use as its splits
    def _shards(self, name):
        """Returns path and number of examples of every file of a split; UserError unless the files hold as many."""
        if name not in self.splits:
            raise UserError(f"The dataset has no split {name!r}; it has {', '.join(self.splits)}.")
        split = self._builder.info.splits[name]
        with _read_by_tfds(f"{self._builder.data_dir}/dataset_info.json"):
            shards = [(Path(path), count) for path, count in zip(split.filepaths, split.shard_lengths, strict=True)]
        count_fn = functools.partial(_count_examples, self._builder.info.file_format)
        with concurrent.futures.ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
            for (path, count), found in zip(shards, pool.map(count_fn, [path for path, _ in shards]), strict=True):
                if found != count:
                    raise _damaged(path, f"it holds {found:,} examples of {name}; dataset_info.json says {count:,}")
        return shards

    def _examples(self, name, decoders=None):
        shards = self._shards(name)
        with _read_by_tfds(self._builder.data_dir):
            source = self._builder.as_data_source(split=name, decoders=decoders)
        return Examples(source, name, shards)


def check_path(folder: str | Path) -> None:
    """Raises UserError unless a folder has a name that array_record can open, which takes UTF-8."""
    try:
        str(folder).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"The name of {folder} is not UTF-8, which files of datasets need. Rename it.") from error


class Examples(Sequence):
    """The examples of a split; UserError that names the file of one that cannot be read. Can be pickled."""

    def __init__(self, source: Sequence[dict], split: str, shards: Sequence[tuple[Path, int]]):
        """`shards` are the files of the split and the number of examples in each."""
        self._source, self._split, self._paths = source, split, [path for path, _ in shards]
        self._ends = list(itertools.accumulate((count for _, count in shards), initial=0))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        path = self._paths[bisect.bisect_right(self._ends, index) - 1]
        with _read_by_tfds(f"{path}, example {index} of {self._split},"):
            return self._source[index]


def _open_builder(folder):
    """Returns the TFDS builder that reads a folder; UserError that names a damaged file."""
    import tensorflow_datasets as tfds  # takes seconds, so only where data are read

    features = folder / "features.json"
    if not features.is_file():
        raise UserError(f"The dataset in {folder} lacks the file features.json. {_REMEDY}")
    for name in _feature_classes(read_json(features)):
        if not _FEATURE_CLASS.fullmatch(name):
            raise UserError(
                f"{features} names the feature {name!r}, which is not one of TFDS and would run code of its module; "
                "expected a dataset with the features of datasets/paired_frames.py."
            )
    read_json(folder / "dataset_info.json")
    with _read_by_tfds(f"The dataset in {folder}"):
        builder = tfds.builder_from_directory(folder)
        if builder.info.file_format not in tfds.core.FileFormat.with_random_access():
            formats = " or ".join(sorted(known.value for known in tfds.core.FileFormat.with_random_access()))
            raise UserError(f"The dataset in {folder} is of format {builder.info.file_format}; expected {formats}.")
        return builder


def _feature_classes(value) -> Iterator[str]:
    """Yields the names of all classes in the JSON of features, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and key in ("pythonClassName", "python_class_name", "type"):
                yield inner
            elif isinstance(inner, str) and key == "json":
                yield from _feature_classes(json.loads(inner))
            else:
                yield from _feature_classes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _feature_classes(inner)


def _check_features(path, features):
    """Raises UserError unless the features are those of `datasets.paired_frames`."""
    missing = {*PIXEL_KEYS, *OTHER_KEYS} - set(features)
    if missing:
        raise UserError(f"The dataset in {path!r} holds no paired frames; it lacks {', '.join(sorted(missing))}.")
    size = features["co2_frame"].shape[:2]
    for key in PIXEL_KEYS:
        expected = (*size, 1) if key.endswith("frame") else size
        found = features[key]
        if found.shape != expected or found.np_dtype != np.uint8:
            raise UserError(
                f"In the dataset in {path!r} {key} is {np.dtype(found.np_dtype)} {found.shape}; expected uint8 "
                f"{expected}."
            )
    names = getattr(features["label"], "names", list(CLASSES))
    if list(names) != list(CLASSES):
        raise UserError(f"The dataset in {path!r} has the classes {', '.join(names)}; expected {', '.join(CLASSES)}.")


def _metadata(folder):
    path = folder / "metadata.json"
    metadata = read_json(path) if path.is_file() else {}
    bounds, leak = metadata.get("bounds", {}), metadata.get("leak", "")
    numbers = isinstance(bounds, dict) and all(isinstance(value, int | float) for value in bounds.values())
    if not numbers or not isinstance(leak, str):
        raise _damaged(path, "expected numbers as bounds and a text as leak")
    return metadata


def _count_examples(file_format, path):
    from tensorflow_datasets.core import file_adapters

    if not path.is_file():  # also a pipe, which would be waited for
        raise UserError(f"The dataset lacks the file {path}. {_REMEDY}")
    with _read_by_tfds(path):
        return file_adapters.ADAPTER_FOR_FORMAT[file_format].num_examples(path)


@contextlib.contextmanager
def _read_by_tfds(what):
    """Turns errors, which TFDS and array_record raise of many types, into UserError about `what`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _damaged(what, reason) from error


def _damaged(what, reason) -> UserError:
    return UserError(f"{what} is damaged: {reason.rstrip('.')}. {_REMEDY}")
