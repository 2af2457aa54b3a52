"""Division of a sequence into parts, such as splits, by given shares."""

from collections.abc import Sequence

import numpy as np


def divide(
    count: int, shares: Sequence[float], *, one_each: bool = False, before: Sequence[int] | None = None
) -> np.ndarray:
    """Returns the part of each of `count` things in a row, int [count]; any stretch of it is divided by the shares.

    With `one_each` the first things go to every part that has none in turn, so that even a rare kind of thing is in
    every part. `before` counts the things that the parts have already.
    """
    shares = np.asarray(shares)
    counts = np.zeros(len(shares)) if before is None else np.array(before, float)
    parts = np.zeros(count, int)
    for i in range(count):
        lacking = counts == 0
        missing = lacking if one_each and lacking.any() else shares * (counts.sum() + 1) - counts
        parts[i] = np.argmax(missing)
        counts[parts[i]] += 1
    return parts
