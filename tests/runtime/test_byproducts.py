"""A by-product that fails is told and ends nothing."""

import pytest

from fume_jax.runtime.byproducts import ByProducts


def test_failures_are_told_and_counted_and_what_follows_goes_on():
    told = []
    by_products = ByProducts(told.append)
    for i in range(5):
        with by_products.attempt("masks", f"masks/{i}"):
            if i != 1:
                raise OSError(28, "No space left on device", "x.png")
    with by_products.attempt("timeline.png"):
        raise ValueError("first line\nsecond line")
    with by_products.attempt("annotated.mp4"):
        raise MemoryError
    by_products.summarize()
    assert told == [
        "WARNING: masks/0 could not be made: No space left on device",
        "WARNING: masks/2 could not be made: No space left on device",
        "WARNING: masks/3 could not be made: No space left on device",
        "WARNING: timeline.png could not be made: first line",
        "WARNING: annotated.mp4 could not be made: MemoryError",
        "WARNING: masks: 1 more could not be made",
    ]
    assert by_products.failures == {"masks": 4, "timeline.png": 1, "annotated.mp4": 1}


def test_nothing_is_counted_where_nothing_fails():
    by_products = ByProducts()
    with by_products.attempt("masks"):
        pass
    assert not by_products.failures


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_failure(kind):
    by_products = ByProducts()
    with pytest.raises(kind), by_products.attempt("masks"):
        raise kind
    assert not by_products.failures
