"""Batches of a split, read at random by grain.

What a batch holds is a function of (seed, step) alone: training indexes an endless, shuffled, randomly accessible
sequence, and a run that resumes at step `s` slices it there. Each process reads its share of every batch.

A batch is made in two steps. A *sample request* names an example and the augmentation plan drawn for it; `_load` reads
the example and applies the plan. Where a device cache holds the split, requests alone are batched, see
`fume_jax.data.device_cache`.
"""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
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
from fume_jax.runtime.preemption import StopRequest
from fume_jax.schema import CLASSES, GASES, batch_spec, make_example

SAMPLINGS = ("uniform", "balanced")


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How examples are read; none of it changes what a batch holds.

    `num_workers` processes, or this one if 0, read and augment with `num_threads` threads each. `prefetch` batches are
    held ready. If none comes for `timeout_seconds`, the run ends.
    """

    num_threads: int
    num_workers: int
    prefetch: int
    timeout_seconds: float


def training_batches(
    source: Sequence[dict],
    labels: np.ndarray,
    *,
    batch_size: int,
    height: int,
    width: int,
    sampling: str,
    augmentation: Sequence[RandomOperation],
    seed: int,
    start_step: int,
    read_options: ReadOptions,
    requests_only: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields endless training batches of this process's share, from step `start_step` on.

    Args:
      source: examples of a split, see `Dataset.split`.
      labels: int [N], their classes.
      batch_size: over all processes.
      height, width: of the frames, pixels.
      sampling: `uniform`, every example once an epoch, or `balanced`, with replacement, every class equally often.
      augmentation: applied in this order to every example.
      seed: of the run.
      start_step: batches that training has already taken.
      read_options: how examples are read.
      requests_only: yield batches of sample requests, `example_index` and `plan`, and read nothing.

    Raises:
      UserError: if a class has no example to balance, a worker dies or no batch comes in time.
      ValueError: if there is no such sampling.
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"Expected sampling to be one of {', '.join(SAMPLINGS)}, got {sampling!r}.")
    if sampling == "uniform":
        indices = grain.MapDataset.range(len(labels)).seed(seed).shuffle().repeat()
    else:
        indices = _balanced_indices(labels, seed)
    examples = indices.random_map(functools.partial(_request, operations=augmentation, height=height, width=width))
    if not requests_only:
        examples = examples.map(functools.partial(_load, source=source, height=height, width=width))
    # Randomness above belongs to a position in the global sequence; only below is it dealt out to processes.
    return _read(_process_share(examples, batch_size)[start_step:], read_options)


def evaluation_batches(
    source: Sequence[dict],
    *,
    batch_size: int,
    height: int,
    width: int,
    read_options: ReadOptions,
    requests_only: bool = False,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this process's share of one pass over a split, in order: every example once, then padding.

    Threads read here whatever `read_options` says: without augmentation, starting workers takes longer than they save.
    Other arguments are as in `training_batches`.
    """
    padded = -(-len(source) // batch_size) * batch_size
    examples = grain.MapDataset.range(padded).map(
        lambda index: {"example_index": np.int32(index if index < len(source) else -1), "plan": {}}
    )
    if not requests_only:
        examples = examples.map(functools.partial(_load, source=source, height=height, width=width))
    return _read(_process_share(examples, batch_size), dataclasses.replace(read_options, num_workers=0))


def chosen_batch(
    source: Sequence[dict], indices: Sequence[int], *, batch_size: int, height: int, width: int
) -> dict[str, np.ndarray]:
    """Returns the examples at those indices, at most `batch_size`, and padding, as one batch."""
    padded = [*map(int, indices), *[-1] * (batch_size - len(indices))]
    requests = [{"example_index": index, "plan": {}} for index in padded]
    examples = [_load(request, source=source, height=height, width=width) for request in requests]
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def read_example(source: Sequence[dict], index: int, *, height: int, width: int) -> dict:
    """Reads one example and resizes its frames and masks, pixels uint8."""
    example = source[index]
    kept = {key: example[key] for key in (*PIXEL_KEYS, *OTHER_KEYS)}
    return transforms.resize(kept, height=height, width=width)


def padding_example(height: int, width: int) -> dict[str, np.ndarray]:
    """Returns an example that fills up a batch and counts nowhere."""
    example = {key: np.zeros(spec.shape[1:], spec.dtype) for key, spec in batch_spec(1, height, width).items()}
    return example | {"example_index": np.int32(-1), "recording_index": np.int32(-1)}


def one_thread_per_image() -> None:
    """Keeps OpenCV from using threads of its own, which would compete with those that examples are spread over."""
    cv2.setNumThreads(1)


def _process_share(examples, batch_size):
    """This process's share of every batch: consecutive examples, so that a batch is the same whoever reads it."""
    count = jax.process_count()
    return examples.batch(batch_size // count, drop_remainder=True)[jax.process_index() :: count]


def _balanced_indices(labels, seed):
    counts = np.bincount(labels, minlength=len(CLASSES))
    if (counts == 0).any():
        empty = [name for name, count in zip(CLASSES, counts, strict=True) if not count]
        raise UserError(f"No training example of class {', '.join(empty)}; use --config.data.sampling=uniform.")
    members = [np.flatnonzero(labels == c) for c in range(len(CLASSES))]

    def draw(_, rng):
        return int(rng.choice(members[rng.integers(len(CLASSES))]))

    return grain.MapDataset.range(len(labels)).seed(seed).repeat().random_map(draw)


def _request(index, rng, *, operations, height, width):
    """Draws the sample request of one position of the sequence."""
    plan = draw_plan(operations, rng, height=height, width=width)
    return {"example_index": np.int32(index), "plan": plan}


def _load(request, *, source, height, width):
    """Builds the example that a request names."""
    index = int(request["example_index"])
    if index < 0:
        return padding_example(height, width)
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
    """Reads the batches of a grain.MapDataset by threads or by processes."""
    one_thread_per_image()
    batches = batches.to_iter_dataset(grain.ReadOptions(options.num_threads, options.prefetch))
    if options.num_workers:
        # Grain looks at its flags, which nobody has parsed outside of a command.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        # Each worker is a fresh interpreter: forking a process in which JAX runs threads can hang it.
        workers = grain.MultiprocessingOptions(options.num_workers)
        batches = batches.mp_prefetch(workers, worker_init_fn=_start_worker)
    return _with_timeout(iter(batches), options.timeout_seconds)


def _with_timeout(batches, seconds):
    """Yields the same batches; a worker that died or a read that hangs ends the run instead of hanging it."""
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
    one_thread_per_image()
    # A signal to all processes of a job is for the run, which needs more batches until the step at which it stops.
    for number in StopRequest.SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    multiprocessing.parent_process().join()
    os._exit(1)
