"""The examples of a split decoded and resized once, in files that are mapped into memory and read at random."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import filelock
import jax
import numpy as np

from fume_jax import guards
from fume_jax.ahead import map_ahead
from fume_jax.errors import UserError
from fume_jax.vocabulary import GASES

# In the order in which they lie in `pixels`.
PIXEL_KEYS = tuple(f"{gas}_{kind}" for gas in GASES for kind in ("frame", "mask"))
OTHER_KEYS = ("modality_mask", "label", "recording_index")
# Examples that are decoded before they are passed on.
CHUNK = 64

Arrays = dict[str, np.ndarray]


def decoded_spec(count: int, height: int, width: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of so many examples, decoded."""
    return {
        "pixels": jax.ShapeDtypeStruct((count, len(PIXEL_KEYS), height, width), np.uint8),
        "modality_mask": jax.ShapeDtypeStruct((count, len(GASES)), np.float32),
        "label": jax.ShapeDtypeStruct((count,), np.int32),
        "recording_index": jax.ShapeDtypeStruct((count,), np.int32),
    }


def decoded_bytes(count: int, height: int, width: int) -> int:
    """What so many examples take, decoded."""
    return sum(spec.size * spec.dtype.itemsize for spec in decoded_spec(count, height, width).values())


def example_of(arrays: Arrays, index: int | jax.Array) -> dict:
    """One of the examples that arrays hold, as `input_pipeline.Dataset.split` gives them."""
    example = {key: arrays[key][index] for key in OTHER_KEYS}
    pixels = arrays["pixels"][index]
    for place, key in enumerate(PIXEL_KEYS):
        example[key] = pixels[place][..., None] if key.endswith("frame") else pixels[place]
    return example


def decode(read: Callable[[int], dict], count: int, num_threads: int) -> Iterator[Arrays]:
    """Examples `read(0)` to `read(count - 1)`, read by threads, as arrays of `CHUNK` of them or what is left."""
    with ThreadPoolExecutor(num_threads) as pool:
        examples = map_ahead(pool, read, range(count), depth=2 * num_threads)
        while part := list(itertools.islice(examples, CHUNK)):
            spec = decoded_spec(len(part), *part[0]["co2_mask"].shape)
            arrays = {key: np.array([example[key] for example in part], spec[key].dtype) for key in OTHER_KEYS}
            pixels = [np.squeeze(example[key]) for example in part for key in PIXEL_KEYS]
            yield arrays | {"pixels": np.stack(pixels).reshape(spec["pixels"].shape)}


class Decoded(Sequence):
    """Random access to the examples in a folder of `.npy` files."""

    def __init__(self, folder: Path):
        """Raises OSError, ValueError or EOFError if a file is missing or cut short."""
        self._folder = folder
        # Plain arrays: numpy's own class for mapped files takes longer to index than a frame to read.
        keys = ("pixels", *OTHER_KEYS)
        self.arrays = {key: np.asarray(np.load(folder / f"{key}.npy", mmap_mode="r")) for key in keys}

    def __reduce__(self):
        # Another process maps the files too, instead of being sent what is in them.
        return Decoded, (self._folder,)

    def __len__(self) -> int:
        return len(self.arrays["label"])

    def __getitem__(self, index: int) -> dict:
        return example_of(self.arrays, index)


def cached(
    folder: Path, *, of: dict, spec: dict[str, jax.ShapeDtypeStruct], chunks: Callable[[], Iterable[Arrays]]
) -> Decoded:
    """The examples that a folder holds, after writing them there unless it holds the same ones already.

    Processes that ask for one folder at a time write it once. Whatever ends them meanwhile, the folder is whole or not
    there.

    Args:
      folder: of the cache; what it holds of anything else is removed.
      of: what the examples are made from, by which an old cache is told from a new one; JSON.
      spec: shapes and dtypes of the arrays.
      chunks: gives the arrays, some examples after another.

    Raises:
      UserError: if the folder cannot be written, or the disk has no room for it.
    """
    made_from = json.dumps(of | {"shape": spec["pixels"].shape}, sort_keys=True)
    if (found := _open(folder, made_from)) is not None:
        return found
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(f"{folder.name}.lock")), guards.full_disk(folder, "The decoded split"):
            if (found := _open(folder, made_from)) is None:
                needed = sum(x.size * x.dtype.itemsize for x in spec.values())
                guards.check_free_space(folder, needed, "The decoded split")
                _write(folder, made_from, spec, chunks())
                found = Decoded(folder)
    except OSError as error:
        raise UserError(
            f"The decoded dataset cannot be written to {folder}: {error.strerror or error}. Make that folder writable, "
            "copy the dataset to where it is, or decode while training: --config.data.cache=none."
        ) from error
    return found


def _open(folder, made_from):
    """What the folder holds; None if that is nothing, of something else, or cut short."""
    try:
        return Decoded(folder) if (folder / "made_from.json").read_text() == made_from else None
    except (OSError, ValueError, EOFError):
        return None


def _write(folder, made_from, spec, chunks):
    part = folder.with_name(f"{folder.name}.part")
    for old in (part, folder):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir()
    with contextlib.ExitStack() as stack:
        # Written, not mapped: a process that writes to a mapped file on a full disk is killed without a word.
        files = {key: stack.enter_context(open(part / f"{key}.npy", "wb")) for key in spec}
        for key, file in files.items():
            header = {"descr": spec[key].dtype.str, "fortran_order": False, "shape": spec[key].shape}
            np.lib.format.write_array_header_1_0(file, header)
        for arrays in chunks:
            for key, file in files.items():
                file.write(arrays[key].data)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    (part / "made_from.json").write_text(made_from)
    part.rename(folder)
