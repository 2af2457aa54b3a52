"""Work that runs in parallel, a little ahead of its consumer."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor


def prefetch_map(pool: Executor, function: Callable, items: Iterable, *, depth: int) -> Iterator:
    """Applies `function` to every item in a pool and yields the results in order, at most `depth` ahead.

    `items` may be endless. What still waits for a worker is cancelled when the consumer stops early or anything raises.
    """
    ahead = collections.deque()
    try:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > depth:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


def one_ahead(items: Iterable) -> Iterator:
    """Yields the same items, each after the next one was taken: what an item has started runs meanwhile."""
    items = iter(items)
    try:
        waiting = next(items)
    except StopIteration:
        return
    for item in items:
        yield waiting
        waiting = item
    yield waiting
