"""Work ahead of who takes it: in order, not too far, and given up with its consumer."""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fume_jax.runtime.prefetch import prefetch_map


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_results_come_in_order_from_items_without_end_pulled_no_further_than_the_depth(depth):
    pulled = []
    items = (pulled.append(i) or i for i in itertools.count())
    with ThreadPoolExecutor(2) as pool:
        results = prefetch_map(pool, lambda x: x * x, items, depth=depth)
        assert not pulled
        for i in range(10):
            assert next(results) == i * i
            assert pulled == list(range(i + depth + 1))
        results.close()


def test_all_items_come_where_there_are_fewer_than_the_depth():
    with ThreadPoolExecutor(2) as pool:
        assert list(prefetch_map(pool, str, [1, 2, 3], depth=8)) == ["1", "2", "3"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_queued_is_given_up_with_the_consumer_or_with_an_error(fails):
    done, taken = [], threading.Event()

    def work(i):
        if i == 0:
            if fails:
                raise ValueError("item 0")
            return
        taken.wait()  # the one worker holds item 1, all others are queued
        done.append(i)

    with ThreadPoolExecutor(1) as pool:
        results = prefetch_map(pool, work, range(100), depth=5)
        if fails:
            with pytest.raises(ValueError, match="item 0"):
                next(results)
        else:
            next(results)
            results.close()
        taken.set()
    assert done in ([], [1])
