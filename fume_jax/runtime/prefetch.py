"""Work that runs in parallel, a little ahead of its consumer."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor


def prefetch_map(pool: Executor, function: Callable, items: Iterable, *, depth: int) -> Iterator:
    """Applies `function` to every item in a pool and yields the results in order, at most `depth` ahead.

    `items` may be endless. When the consumer stops early or anything raises, calls that have not started are cancelled.
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
    """Yields the same items, each after the next one was taken: the work that an item has started runs meanwhile."""
    ahead = collections.deque()
    for item in items:
        ahead.append(item)
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead
