"""Shards of a dataset, made in parallel and written one after the other."""

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path

from tqdm import tqdm

from fume_jax.runtime import prefetch
from fume_jax.runtime.preflight import check_free_space

# TFDS holds the examples of a shard in memory while it writes them.
BYTES_PER_SHARD = 200e6
# Of two frames and two masks, a byte a pixel, what is left on disk. Measured: 0.22 of 640x480 (0.28 of 320x240) if
# simulated, 0.18 (0.26) if filmed.
STORED_SHARE = 0.3


def prefetch_with_bar(pool: Executor, function: Callable, items: Sequence, *, desc: str, unit: str) -> Iterator:
    """Applies `prefetch.prefetch_map` with a few items a core ahead and a progress bar."""
    results = prefetch.prefetch_map(pool, function, items, depth=4 * os.cpu_count())
    yield from tqdm(results, total=len(items), desc=desc, unit=unit, disable=None)


def shards(results: Iterator, count: int, bytes_each: float, keyed_examples: Callable) -> list[Callable]:
    """What a TFDS ShardBasedBuilder writes one after the other: each shard takes the results where the last stopped.

    Args:
      results: `count` of them, of about `bytes_each`.
      keyed_examples: gives the (key, example) pairs of one result.
    """
    size = max(1, round(BYTES_PER_SHARD / bytes_each))

    def write(length):
        for result in itertools.islice(results, length):
            yield from keyed_examples(result)

    return [functools.partial(write, min(size, count - start)) for start in range(0, count, size)]


def check_room(folder: str | Path, pairs: int, height: int, width: int) -> None:
    """Raises UserError unless the disk that will hold a dataset in `folder` has room for pairs of that size, pixels."""
    check_free_space(folder, STORED_SHARE * 4 * pairs * height * width, f"A dataset of {pairs:,} pairs")
