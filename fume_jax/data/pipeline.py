"""Reads batches of a split with grain, by random access.

The content of a batch is a function of (seed, step) alone: training indexes an endless shuffled sequence, and a run
that resumes at step `s` slices it there. Each process reads its share of every batch.

A batch is made in two steps. A *sample request* names an example and the augmentation plan drawn for it; `_load` reads
the example and applies the plan. If a device cache holds the split, only the requests are batched, see
`fume_jax.data.device_cache`.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Iterator, Sequence

import cv2
import grain
import jax
import numpy as np
from absl import flags

from fume_jax.data import transforms
from fume_jax.data.dataset import OTHER_KEYS, PIXEL_KEYS
from fume_jax.learning.augment import RandomOperation, draw_plan
from fume_jax.runtime.errors import Stalled, UserError
from fume_jax.runtime.workers import follow_parent
from fume_jax.schema import CLASSES, GASES, batch_spec, make_example

SAMPLINGS = ("uniform", "balanced")


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Decides how examples are read; no option changes the content of a batch.

    `num_workers` processes, or this one if 0, read and augment with `num_threads` threads each. They keep `prefetch`
    batches ready. A run ends if it gets no batch for `timeout_seconds`.
    """

    num_threads: int
    num_workers: int
    prefetch: int
    timeout_seconds: float


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Decides the content of batches, and how they are read.

    `height` and `width` are those of the frames in pixels; batch sizes are over all devices. `sampling` is `uniform`,
    every example once per epoch, or `balanced`, with replacement, every class equally often. `augmentation` are the
    operations on every training example, in order; `seed` is that of the run; `cache` is one of `loader.CACHES`.
    `every_class` refuses to balance if a class has no example; a model that does not classify can do without.
    """

    height: int
    width: int
    train_batch_size: int
    eval_batch_size: int
    sampling: str
    augmentation: Sequence[RandomOperation]
    seed: int
    cache: str
    read: ReadOptions
    every_class: bool = True


def training_batches(
    source: Sequence[dict], labels: np.ndarray, options: DataOptions, *, start_step: int, requests_only: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Yields endless training batches of this process's share, from step `start_step` on.

    Args:
      source, labels: examples of a split, see `Dataset.split`, and their classes, int [N].
      options, start_step: content of the batches, and number of batches already taken.
      requests_only: yield batches of sample requests, `example_index` and `plan`, without reading examples.

    Raises:
      UserError: if sampling is balanced and lacks a class that it must have, a worker dies or no batch comes in time.
      ValueError: if the sampling is unknown.
    """
    if options.sampling not in SAMPLINGS:
        raise ValueError(f"Expected sampling to be one of {', '.join(SAMPLINGS)}, got {options.sampling!r}.")
    if options.sampling == "uniform":
        indices = grain.MapDataset.range(len(labels)).seed(options.seed).shuffle().repeat()
    else:
        indices = _balanced_indices(labels, options.seed, options.every_class)
    requests = indices.random_map(functools.partial(_request, options=options))
    batches = _batches(requests, source, options, options.train_batch_size, requests_only)
    return _read(batches[start_step:], options.read)


def evaluation_batches(
    source: Sequence[dict], options: DataOptions, batch_size: int, *, requests_only: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's share of one pass over a split, in order: every example once, then padding.

    Only threads read: without augmentation, starting worker processes takes longer than they save.
    """
    padded = -(-len(source) // batch_size) * batch_size
    requests = grain.MapDataset.range(padded).map(
        lambda index: {"example_index": np.int32(index if index < len(source) else -1), "plan": {}}
    )
    batches = _batches(requests, source, options, batch_size, requests_only)
    return _read(batches, dataclasses.replace(options.read, num_workers=0))


def chosen_batch(
    source: Sequence[dict], indices: Sequence[int], options: DataOptions, batch_size: int
) -> dict[str, np.ndarray]:
    """Returns the examples at `indices`, at most `batch_size`, and padding, as one batch."""
    padded = [*map(int, indices), *[-1] * (batch_size - len(indices))]
    examples = [_load({"example_index": index, "plan": {}}, source=source, options=options) for index in padded]
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def read_example(source: Sequence[dict], index: int, *, height: int, width: int) -> dict:
    """Reads one example and resizes its uint8 frames and masks."""
    example = source[index]
    kept = {key: example[key] for key in (*PIXEL_KEYS, *OTHER_KEYS)}
    return transforms.resize(kept, height=height, width=width)


def one_thread_per_image() -> None:
    """Keeps OpenCV from starting threads of its own, which would compete with those that read examples."""
    cv2.setNumThreads(1)


def _batches(examples, source, options, batch_size, requests_only):
    """Loads requested examples and slices this process's share of every batch: consecutive ones of the global sequence.

    Random draws come before, so that the number of processes changes no batch.
    """
    if not requests_only:
        examples = examples.map(functools.partial(_load, source=source, options=options))
    count = jax.process_count()
    return examples.batch(batch_size // count, drop_remainder=True)[jax.process_index() :: count]


def _balanced_indices(labels, seed, every_class):
    members = [np.flatnonzero(labels == c) for c in range(len(CLASSES))]
    empty = [name for name, found in zip(CLASSES, members, strict=True) if not len(found)]
    if empty and every_class:
        raise UserError(
            f"No training example of class {', '.join(empty)}. Add recordings of it; train on the masks alone by "
            "--config=fume:ablation_segmentation; or, for a model that never finds it, --config.data.sampling=uniform."
        )
    members = [found for found in members if len(found)]
    positions = grain.MapDataset.range(len(labels)).seed(seed).repeat()
    return positions.random_map(lambda _, rng: int(rng.choice(members[rng.integers(len(members))])))


def _request(index, rng, *, options):
    """Draws the sample request of one position of the sequence."""
    plan = draw_plan(options.augmentation, rng, height=options.height, width=options.width)
    return {"example_index": np.int32(index), "plan": plan}


def _load(request, *, source, options):
    """Builds the example that a request names; padding for the index -1."""
    index, height, width = int(request["example_index"]), options.height, options.width
    if index < 0:
        zeros = {key: np.zeros(spec.shape[1:], spec.dtype) for key, spec in batch_spec(1, height, width).items()}
        return zeros | {"example_index": np.int32(-1), "recording_index": np.int32(-1)}
    example = transforms.apply(read_example(source, index, height=height, width=width), request["plan"])
    present = dict(zip(GASES, example["modality_mask"], strict=True))
    return make_example(
        frames={gas: transforms.normalize(example[f"{gas}_frame"], present[gas]) for gas in GASES},
        masks={gas: example[f"{gas}_mask"].astype(np.int32) for gas in GASES},
        modality_mask=example["modality_mask"],
        label=np.int32(example["label"]),
        valid=np.True_,
        example_index=np.int32(index),
        recording_index=np.int32(example["recording_index"]),
    )


def _read(batches, options):
    """Reads the batches of a grain.MapDataset in threads or worker processes."""
    one_thread_per_image()
    batches = batches.to_iter_dataset(grain.ReadOptions(options.num_threads, options.prefetch))
    if options.num_workers:
        # Grain reads its flags, which only commands have parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        # Each worker is a fresh interpreter: forking a process in which JAX runs threads can hang it.
        workers = grain.MultiprocessingOptions(options.num_workers)
        batches = batches.mp_prefetch(workers, worker_init_fn=_start_worker)
    return _with_timeout(iter(batches), options.timeout_seconds)


def _with_timeout(batches, seconds):
    """Yields the same batches; raises if a worker has died or a read hangs, so that the run does not hang."""
    waiter = concurrent.futures.ThreadPoolExecutor(1)
    try:
        while (batch := waiter.submit(next, batches, None).result(seconds)) is not None:
            yield batch
    except TimeoutError as error:
        for worker in multiprocessing.active_children():
            worker.kill()
        reason = "a disk or a network hangs, or the first batch takes longer than that"
        remedy = "Check that the dataset can be read, or raise --config.data.timeout_seconds."
        raise Stalled(f"No batch came for {seconds:g} s: {reason}. {remedy}") from error
    except RuntimeError as error:
        if "Worker process" not in str(error):
            raise
        remedy = "The usual reason is too little memory: lower --config.data.num_workers."
        raise UserError(f"A loader worker died ({error}). {remedy}") from error
    except GeneratorExit:
        batches.close()
        raise
    finally:
        waiter.shutdown(wait=False)


def _start_worker(*_):
    one_thread_per_image()
    follow_parent()
