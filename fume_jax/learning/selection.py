"""Which predicted frames a person should label next: scores of frames, and a choice among them; in numpy.

Three signs that pixels of a mask may be wrong need no annotation. A model that is uncertain of them says so (Settles
2009, "Active Learning Literature Survey", 3.1). A plume has inertia, so that an area that differs from those of the
frames before and after is seldom one of the plume. And the mask of a mirrored frame should be the mirrored mask; where
predictions of one frame under such changes disagree, they err (Gal et al. 2017, arXiv:1703.02910, with dropout). All
three are shares of the frame: what a correction teaches is as much as it changes. Relative to the plume they would
prefer the smallest ones, which teach least.

Frames with the highest scores are often one moment of one film. So the choice is spread: of several times as many
frames as are asked for, k-means makes clusters of similar pictures, and of each cluster the frame with the highest
score is taken (Zhdanov 2019, arXiv:1901.05954). The more so with few labels, of which the most uncertain ones alone
teach less than random ones do (Hacohen et al. 2022, arXiv:2202.02794): every recording gives its share.
"""

import itertools
from collections import Counter
from collections.abc import Hashable, Sequence

import cv2
import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import entr, softmax
from scipy.stats import rankdata

# The names of some frames, and the most of them that may have one name.
Bound = tuple[Sequence[Hashable], int]
# The scores of a frame, in their order.
SCORES = ("uncertainty", "jump", "disagreement")
# Number of frames before and after one by which a jump is judged.
NEIGHBORS = 2
# Side of a small picture, in pixels.
SIDE = 16
# Frames of a group that the choice is made from, in multiples of the most that are taken of it.
POOL = 5
# The most steps of k-means.
STEPS = 100


def uncertainty(logits: np.ndarray) -> float:
    """Returns the mean entropy of pixels, in [0, 1] of its maximum; `logits` are float [H, W, C] of mask classes."""
    entropy = entr(softmax(logits.astype(np.float64), axis=-1)).sum(-1)
    return float(entropy.mean() / np.log(logits.shape[-1]))


def jumps(shares: np.ndarray) -> np.ndarray:
    """Returns by how much the gas of each frame differs from that of its neighbours, in shares of the frame, float [N].

    `shares` of the frames that are gas, float [N], are in order of time. A share is compared with the median of the
    `NEIGHBORS` frames on either side, at the ends with that of as many on one side: one frame with a wrong mask is
    seen, and does not make its neighbours look wrong. A frame without neighbours has 0.
    """
    if len(shares) < 2:
        return np.zeros(len(shares))
    own, width = np.arange(len(shares))[:, None], min(2 * NEIGHBORS + 1, len(shares))
    window = np.clip(own - NEIGHBORS, 0, len(shares) - width) + np.arange(width)
    usual = np.median(shares[window[window != own]].reshape(-1, width - 1), axis=1)
    return np.abs(shares - usual)


def disagreement(gas: np.ndarray, mirrored: np.ndarray) -> float:
    """Returns the share of pixels that are gas in one of two masks, bool [H, W]: of a frame, and of it mirrored."""
    return float((gas ^ mirrored).mean())


def to_ranks(scores: np.ndarray) -> np.ndarray:
    """Replaces each of several scores, float [N, S], by its rank among the frames, in (0, 1), the mean one for ties.

    Ranks have no scale: the scores count alike in their mean, however they are distributed.
    """
    return (rankdata(scores, axis=0) - 0.5) / max(1, len(scores))


def candidates(jump: np.ndarray, count: int) -> np.ndarray:
    """Returns positions of at most `count` frames to score, ascending: half evenly spread, half with the largest jumps.

    `jump` is float [N], in order of time.
    """
    if len(jump) <= count:
        return np.arange(len(jump))
    even = np.linspace(0, len(jump) - 1, (count + 1) // 2).round().astype(int)
    others = np.setdiff1d(np.arange(len(jump)), even)
    largest = others[np.argsort(-jump[others], kind="stable")][: count - len(even)]
    return np.sort(np.concatenate([even, largest]))


def small_picture(frame: np.ndarray) -> np.ndarray:
    """Shrinks a grey frame, uint8 [H, W], to float32 [SIDE * SIDE] of mean 0 and norm 1, 0 if all of it is one grey."""
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    norm = np.linalg.norm(small)
    return small / norm if norm else small


def choose(
    scores: np.ndarray,
    groups: Sequence[Hashable],
    pictures: np.ndarray,
    count: int,
    *,
    bounds: Sequence[Bound] = (),
    seed: int = 0,
) -> np.ndarray:
    """Chooses frames with high scores that look different, from all groups alike.

    Args:
      scores: float [N].
      groups: group of each frame, such as its recording. A group gives no more than an even share, as long as the
        others have frames: a few hard recordings would leave a model ignorant of the others.
      pictures: float [N, D], of which the distances say how different frames look; see `small_picture`.
      count: number of frames to choose; fewer if there are not as many.
      bounds: names of the frames, and the most frames of one name, each.
      seed: of k-means.

    Returns:
      Positions, int [count], of the highest score first.
    """
    order = _within(np.argsort(-scores, kind="stable"), [(names, POOL * most) for names, most in bounds])
    best, sizes = _within(order, bounds), list(Counter(groups).values())
    if len(best) < count:
        return best  # all that the bounds allow
    for share in range(_even_share(sizes, count), max(sizes) + 1):
        limits = [(groups, share), *bounds]
        pool = _within(order, [(groups, POOL * share)])
        clusters = _cluster(pictures[pool].astype(np.float64), min(count, len(pool)), np.random.default_rng(seed))
        # The pool is in order of the scores, so the first frame of a cluster is its best. Some of these may pass the
        # limits, and frames that look the same leave clusters empty: the best others fill up.
        first = np.sort(np.unique(clusters, return_index=True)[1])
        rest = np.setdiff1d(np.arange(len(pool)), first)
        chosen = _within(pool[np.concatenate([first, rest])], limits)[:count]
        if len(chosen) == count:
            break
    else:
        chosen = best[:count]
    return chosen[np.argsort(-scores[chosen], kind="stable")]


def _even_share(sizes, count):
    """Returns the least number that, taken of each of the groups of these sizes, gives `count` frames."""
    return next(share for share in itertools.count(1) if sum(min(share, size) for size in sizes) >= count)


def _within(positions, bounds):
    """Returns the positions, in their order, without those that would pass a bound."""
    kept, taken = [], [Counter() for _ in bounds]
    for i in positions:
        if all(counter[names[i]] < most for counter, (names, most) in zip(taken, bounds, strict=True)):
            kept.append(i)
            for counter, (names, _) in zip(taken, bounds, strict=True):
                counter[names[i]] += 1
    return np.array(kept, int)


def _cluster(points, count, rng):
    """Returns the cluster of each point by k-means, whose centres begin apart (Arthur & Vassilvitskii 2007)."""
    centers = points[[rng.integers(len(points))]]
    while len(centers) < count and (squares := cdist(points, centers, "sqeuclidean").min(1)).any():
        centers = np.append(centers, points[[rng.choice(len(points), p=squares / squares.sum())]], axis=0)
    for _ in range(STEPS):
        clusters = cdist(points, centers, "sqeuclidean").argmin(1)
        means = [points[clusters == k].mean(0) if (clusters == k).any() else center for k, center in enumerate(centers)]
        if np.array_equal(means, centers):
            break
        centers = np.array(means)
    return clusters
