"""Work done in parallel, a little ahead of who takes it."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor


def map_ahead(pool: Executor, function: Callable, items: Iterable, *, depth: int) -> Iterator:
    """`function` of every item, in order; `items` may be endless, since at most `depth` wait beyond what is taken.

    What still waits for a worker is cancelled when the consumer stops early or anything raises.
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
