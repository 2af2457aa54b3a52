"""Work done in parallel, a little ahead of who takes it, and written in shards."""

import collections
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

from tqdm import tqdm

# TFDS holds the examples of a shard in memory while it writes them.
BYTES_PER_SHARD = 200e6


def map_ahead(pool: Executor, function: Callable, items: Sequence, *, desc: str, unit: str) -> Iterator:
    """`function` of every item, in order; workers are a few items ahead, not more. Shows a progress bar."""
    ahead = collections.deque()
    with tqdm(total=len(items), desc=desc, unit=unit, disable=None) as bar:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 4 * os.cpu_count():
                yield ahead.popleft().result()
                bar.update()
        for result in ahead:
            yield result.result()
            bar.update()


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
