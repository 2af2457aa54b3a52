"""Batches from a prepared dataset of paired frames, read at random by grain.

What a batch holds is a function of (seed, step) alone: training indexes an endless, shuffled, randomly accessible
sequence, and a run that goes on at step `s` slices it there. Each process reads its share of every batch.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import grain
import jax
import numpy as np
from absl import flags

from fume_jax import augment_host
from fume_jax.augment import RandomOperation, draw_plan
from fume_jax.decoded import OTHER_KEYS, PIXEL_KEYS, Arrays, Decoded, cached, decode, decoded_spec
from fume_jax.errors import Stalled, UserError
from fume_jax.resident import Resident
from fume_jax.stopping import StopRequest
from fume_jax.vocabulary import CLASSES, GASES, SPLITS, batch_spec

SAMPLINGS = ("uniform", "balanced")
CACHES = ("auto", "none", "disk", "device")


@dataclasses.dataclass(frozen=True)
class Reading:
    """Who reads, and how far ahead; none of it changes what a batch holds.

    `num_workers` processes, or this one if 0, read and augment with `num_threads` threads each. `prefetch` batches are
    held ready. If none comes for `timeout_seconds`, the run ends.
    """

    num_threads: int
    num_workers: int
    prefetch: int
    timeout_seconds: float


class Dataset:
    """The splits of one prepared TFDS dataset."""

    def __init__(self, path: str):
        """Opens the folder `NAME/CONFIG/VERSION` that TFDS prepared.

        Raises:
          UserError: if there is no dataset of paired frames in `path`.
        """
        # Importing TFDS takes seconds, so only where data are read.
        import tensorflow_datasets as tfds

        if not (Path(path) / "dataset_info.json").is_file():
            below = [str(info.parent) for info in Path(path).glob("*/dataset_info.json")]
            raise UserError(
                f"There is no prepared dataset in {path!r}{f'; did you mean {below[-1]}' if below else ''}. Render the "
                "embedded one with\n"
                "  python -m datasets.synthetic_ogi --data_dir=data --name=demo\n"
                "prepare your own recordings with python -m datasets.fume_ogi, or name the folder that holds "
                "dataset_info.json: --config.data.path=DIR to train, --data=DIR to evaluate."
            )
        self._path, self._builder = Path(path), tfds.builder_from_directory(path)
        self._decoded: dict[str, Decoded] = {}
        # Splits that are on the devices.
        self.resident: dict[str, Resident] = {}
        self.name: str = self._builder.info.full_name
        missing = {*PIXEL_KEYS, *OTHER_KEYS} - set(self._builder.info.features)
        if missing:
            raise UserError(
                f"The dataset in {path!r} does not hold paired frames; it lacks {', '.join(sorted(missing))}."
            )
        if not set(SPLITS) <= set(self.splits):
            raise UserError(
                f"The dataset in {path!r} has the splits {', '.join(self.splits)}; expected {', '.join(SPLITS)}."
            )
        metadata = self._builder.info.metadata or {}
        # Scores that bound the task on this dataset, if its maker measured any.
        self.bounds: dict[str, float] = dict(metadata.get("bounds", {}))
        # How its splits share what they should not, in words; empty if they do not.
        self.leak: str = metadata.get("leak", "")

    @property
    def splits(self) -> list[str]:
        return list(self._builder.info.splits)

    def split(self, name: str) -> Sequence[dict]:
        """Random access to the examples of one split, pixels uint8."""
        self._check_split(name)
        return self._decoded[name] if name in self._decoded else self._builder.as_data_source(split=name)

    def keep_decoded(self, name: str, *, height: int, width: int, chunks: Callable[[], Iterator[Arrays]]) -> None:
        """Has `split` give a split as it lies decoded on disk, in this size, beside the dataset.

        Args:
          name: of the split.
          height, width: of the frames, pixels.
          chunks: decodes it, as `chunks` below does, where it does not lie there yet.

        Raises:
          UserError: if there is no such split, or it cannot be written.
        """
        self._check_split(name)
        stats = {Path(path).name: Path(path).stat() for path in self._builder.info.splits[name].filepaths}
        files = {file: [stat.st_size, stat.st_mtime_ns] for file, stat in stats.items()}
        self._decoded[name] = cached(
            self._path / "cache" / f"{height}x{width}" / name,
            of={"dataset": self.name, "files": files},
            spec=decoded_spec(len(self.split(name)), height, width),
            chunks=chunks,
        )

    def chunks(self, name: str, *, height: int, width: int, num_threads: int) -> Iterator[Arrays]:
        """All examples of a split in order, decoded by threads and resized, some at a time, see `fume_jax.decoded`."""
        _one_thread_an_image()
        source = self.split(name)
        return decode(functools.partial(_read, source, height=height, width=width), len(source), num_threads)

    def labels(self, name: str) -> np.ndarray:
        """The class of every example of a split, integers [N], without decoding its pixels."""
        import tensorflow_datasets as tfds

        self._check_split(name)
        for kept in (self.resident, self._decoded):
            if name in kept:
                return np.asarray(kept[name].arrays["label"])
        without_pixels = {key: tfds.decode.SkipDecoding() for key in PIXEL_KEYS}
        source = self._builder.as_data_source(split=name, decoders=without_pixels)
        return np.array([example["label"] for example in source])

    def _check_split(self, name):
        if name not in self.splits:
            raise UserError(f"The dataset has no split {name!r}; it has {', '.join(self.splits)}.")


def training_batches(
    dataset: Dataset,
    *,
    split: str,
    batch_size: int,
    height: int,
    width: int,
    sampling: str,
    augmentation: Sequence[RandomOperation],
    seed: int,
    start_step: int,
    reading: Reading,
    pixels: bool = True,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless training batches of this process's share, from step `start_step` on.

    Args:
      dataset: to read from.
      split: its part to train on.
      batch_size: over all processes.
      height, width: of the frames, pixels.
      sampling: `uniform`, every example once an epoch, or `balanced`, with replacement, every class equally often.
      augmentation: applied in this order to every example.
      seed: of the run.
      start_step: batches that training has already taken.
      reading: who reads.
      pixels: without, nothing is read, and a batch is `example_index` and `plan`: what `Resident.batches` makes it of.

    Raises:
      UserError: if there is no such split, a class has no example to balance, a worker dies or no batch comes in time.
      ValueError: if there is no such sampling.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"Expected sampling to be one of {', '.join(SAMPLINGS)}, got {sampling!r}.")
    if sampling == "uniform":
        indices = grain.MapDataset.range(len(dataset.split(split))).seed(seed).shuffle().repeat()
    else:
        indices = _balanced_indices(dataset.labels(split), seed)
    examples = indices.random_map(functools.partial(_order, operations=augmentation, height=height, width=width))
    if pixels:
        examples = examples.map(functools.partial(_carry_out, source=dataset.split(split), height=height, width=width))
    # Randomness above belongs to a position in the global sequence; only below is it dealt out to processes.
    return _read_ahead(_shares(examples, batch_size)[start_step:], reading)


def evaluation_batches(
    dataset: Dataset, *, split: str, batch_size: int, height: int, width: int, reading: Reading, pixels: bool = True
) -> Iterator[dict[str, np.ndarray]]:
    """This process's share of one pass over a split, in order; every example once, then padding to a full batch.

    Threads read here whatever `reading` says: without augmentation, starting workers takes longer than they save.
    `pixels` is as in `training_batches`.
    """
    source = dataset.split(split)
    padded = -(-len(source) // batch_size) * batch_size
    examples = grain.MapDataset.range(padded).map(
        lambda index: {"example_index": np.int32(index if index < len(source) else -1), "plan": {}}
    )
    if pixels:
        examples = examples.map(functools.partial(_carry_out, source=source, height=height, width=width))
    return _read_ahead(_shares(examples, batch_size), dataclasses.replace(reading, num_workers=0))


def _shares(examples, batch_size):
    """This process's share of every batch: consecutive examples, so that a batch is the same whoever reads it."""
    count = jax.process_count()
    return examples.batch(batch_size // count, drop_remainder=True)[jax.process_index() :: count]


def chosen_batch(
    dataset: Dataset, indices: Sequence[int], *, split: str, batch_size: int, height: int, width: int
) -> dict[str, np.ndarray]:
    """The examples of a split at those indices, at most `batch_size`, and padding, as one batch."""
    source = dataset.split(split)
    padded = [*map(int, indices), *[-1] * (batch_size - len(indices))]
    orders = [{"example_index": index, "plan": {}} for index in padded]
    examples = [_carry_out(order, source=source, height=height, width=width) for order in orders]
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def padding_example(height: int, width: int) -> dict[str, np.ndarray]:
    """An example that fills up a batch and counts nowhere."""
    example = {key: np.zeros(spec.shape[1:], spec.dtype) for key, spec in batch_spec(1, height, width).items()}
    return example | {"example_index": np.int32(-1), "recording_index": np.int32(-1)}


def _balanced_indices(labels, seed):
    counts = np.bincount(labels, minlength=len(CLASSES))
    if (counts == 0).any():
        empty = [name for name, count in zip(CLASSES, counts, strict=True) if not count]
        raise UserError(f"No training example of class {', '.join(empty)}; use --config.data.sampling=uniform.")
    members = [np.flatnonzero(labels == c) for c in range(len(CLASSES))]

    def draw(_, rng):
        return int(rng.choice(members[rng.integers(len(CLASSES))]))

    return grain.MapDataset.range(len(labels)).seed(seed).repeat().random_map(draw)


def _order(index, rng, *, operations, height, width):
    """What an example of a batch is made of: which one, and what is done to it."""
    plan = draw_plan(operations, rng, height=height, width=width)
    return {"example_index": np.int32(index), "plan": plan}


def _carry_out(order, *, source, height, width):
    """The example of a batch that is ordered."""
    index = int(order["example_index"])
    if index < 0:
        return padding_example(height, width)
    example = augment_host.apply(_read(source, index, height=height, width=width), order["plan"])
    return _finish(example | {"example_index": index})


def _read(source, index, *, height, width):
    example = source[index]
    kept = {key: example[key] for key in (*PIXEL_KEYS, *OTHER_KEYS)}
    return augment_host.resize(kept, height=height, width=width)


def _finish(example):
    """The entries of one example in a batch, see `fume_jax.vocabulary`."""
    frames = {
        f"{gas}_frame": augment_host.normalise(example[f"{gas}_frame"], present)
        for gas, present in zip(GASES, example["modality_mask"], strict=True)
    }
    masks = {f"{gas}_mask": example[f"{gas}_mask"].astype(np.int32) for gas in GASES}
    return (
        frames
        | masks
        | {
            "modality_mask": example["modality_mask"],
            "labels": np.int32(example["label"]),
            "valid": np.True_,
            "example_index": np.int32(example["example_index"]),
            "recording_index": np.int32(example["recording_index"]),
        }
    )


def _read_ahead(batches, reading):
    """An iterator over the batches of a grain.MapDataset, read by threads or by processes."""
    _one_thread_an_image()
    batches = batches.to_iter_dataset(grain.ReadOptions(reading.num_threads, reading.prefetch))
    if reading.num_workers:
        # Grain looks at its flags, which nobody has parsed outside of a command.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        # Each worker is a fresh interpreter: forking a process in which JAX runs threads can hang it.
        options = grain.MultiprocessingOptions(reading.num_workers)
        batches = batches.mp_prefetch(options, worker_init_fn=_start_worker)
    return _in_time(iter(batches), reading.timeout_seconds)


def _in_time(batches, seconds):
    """The same batches; a worker that died, or a read that takes for ever, ends the run instead of hanging it."""
    waiter = concurrent.futures.ThreadPoolExecutor(1)
    try:
        while (batch := waiter.submit(next, batches, None).result(seconds)) is not None:
            yield batch
    except TimeoutError as error:
        for worker in multiprocessing.active_children():
            worker.kill()
        raise Stalled(
            f"No batch came for {seconds:g} s: a disk or a network hangs, or the first batch takes longer than that. "
            "Look whether the dataset can be read, or raise --config.data.timeout_seconds."
        ) from error
    except RuntimeError as error:
        if "Worker process" not in str(error):
            raise
        raise UserError(
            f"A loader worker died ({error}). Short memory is the usual reason: lower --config.data.num_workers."
        ) from error
    except GeneratorExit:
        batches.close()
        raise
    finally:
        waiter.shutdown(wait=False)


def _start_worker(*_):
    _one_thread_an_image()
    # A signal to all processes of a job is for the run, which needs more batches until the step at which it stops.
    for number in StopRequest.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)


def _one_thread_an_image():
    # Examples are spread over grain's threads; OpenCV's own would only compete with them.
    cv2.setNumThreads(1)
