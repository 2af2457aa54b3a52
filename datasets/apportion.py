"""Division of a sequence into parts, such as splits, by given shares."""

from collections.abc import Sequence

import numpy as np


def divide(count: int, shares: Sequence[float], *, one_each: bool = False) -> np.ndarray:
    """Returns the part of each of `count` things in a row, int [count]; any stretch of it is divided by the shares.

    With `one_each` the first things go to every part in turn, so that even a rare kind of thing is in every part.
    """
    shares, counts = np.asarray(shares), np.zeros(len(shares))
    parts = np.zeros(count, int)
    for i in range(count):
        missing = counts == 0 if one_each and i < len(shares) else shares * (i + 1) - counts
        parts[i] = np.argmax(missing)
        counts[parts[i]] += 1
    return parts
