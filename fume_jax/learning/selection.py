"""Which predicted frames a person should label next: scores of frames, and a choice among them; in numpy.

Three signs that pixels of a mask may be wrong need no annotation. A model that is uncertain of them says so (Settles
2009, "Active Learning Literature Survey", 3.1). A plume has inertia, so that an area that differs from those of the
frames before and after is seldom one of the plume. And the mask of a mirrored frame should be the mirrored mask; where
predictions of one frame under such changes disagree, they err (Gal et al. 2017, arXiv:1703.02910, with dropout). All
three are shares of the frame: what a correction teaches is as much as it changes. Relative to the plume they would
prefer the smallest ones, which teach least.

Frames with the highest scores are odd ones. As long as labels are few, typical frames teach more than uncertain ones do
(Hacohen, Dekel & Weinshall 2022, arXiv:2202.02794). So k-means makes as many clusters of similar pictures as frames are
asked for, and each gives its most typical frame, the nearest one to its centre; their measure, how close the nearest
other frames are, prefers films that hold still. Every recording gives its share. The scores decide among equals, and
say which of the chosen frames to look at first.
"""

from collections.abc import Hashable, Sequence

import cv2
import numpy as np
from scipy.special import entr, softmax
from scipy.stats import rankdata

# The scores of a frame, in their order.
SCORES = ("uncertainty", "jump", "disagreement")
# Number of frames before and after one by which a jump is judged.
NEIGHBORS = 2
# Side of a small picture, in pixels.
SIDE = 16
# A cluster of fewer frames is of odd ones, and comes last (Hacohen et al. 2022).
FEW = 5
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


def candidates(total: int, count: int) -> np.ndarray:
    """Returns positions of at most `count` of so many frames to score, ascending and evenly spread."""
    return np.linspace(0, total - 1, min(total, count)).round().astype(int)


def small_picture(frame: np.ndarray) -> np.ndarray:
    """Shrinks a grey frame, uint8 [H, W], to float32 [SIDE * SIDE] of mean 0 and norm 1, 0 if all of it is one grey."""
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    norm = np.linalg.norm(small)
    return small / norm if norm else small


def choose(
    scores: np.ndarray,
    groups: Sequence[Sequence[Hashable]],
    pictures: np.ndarray,
    count: int,
    *,
    most: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Chooses typical frames that look different, from all groups alike.

    The next frame is of the group that has given the fewest, then of the cluster that has given the fewest, the largest
    one of these; and of its frames the most typical one.

    Args:
      scores: float [N], by which the chosen frames are in order, and one is taken of those that are as typical.
      groups: groups of the frames, such as the recording of each, [N], and the finer groups within these, [N] each. One
        gives no second frame as long as others have not given a first: typical frames of a few recordings would leave
        a model ignorant of the others.
      pictures: float [N, D], of which the distances say how different frames look, see `small_picture`.
      count: number of frames to choose; fewer if there are not as many.
      most: the most frames of one of the first groups, if there is a limit.
      seed: of k-means.

    Returns:
      Positions, int [count], of the highest score first.
    """
    total, names = len(scores), [_number(own) for own in groups]
    # As many as the limit allows; since groups take turns, none passes it.
    count = min(count, int(np.minimum(np.bincount(names[0]), most or total).sum()))
    if count == total:
        return np.argsort(-scores, kind="stable")
    clusters, distances = _cluster(pictures.astype(np.float64), count, np.random.default_rng(seed))
    sizes = np.bincount(clusters)
    names, rows = np.array([*names, clusters]), np.arange(len(names) + 1)
    taken = np.zeros((len(rows), names.max() + 1), int)
    # Clusters of odd frames count as if they had given all that they have.
    taken[-1, np.flatnonzero(sizes < min(FEW, total / (2 * count)))] = total
    left, chosen = np.lexsort((-scores, distances.round(6), -sizes[clusters])), []
    for _ in range(count):
        best = np.lexsort(taken[rows[:, None], names[:, left]][::-1])[0]
        taken[rows, names[:, left[best]]] += 1
        chosen.append(left[best])
        left = np.delete(left, best)
    return np.array(chosen)[np.argsort(-scores[chosen], kind="stable")]


def _number(names):
    """Numbers names from 0 in the order of their first frames, int [N]."""
    seen = {}
    return np.array([seen.setdefault(name, len(seen)) for name in names], int)


def _cluster(points, count, rng):
    """Returns the cluster of each point by k-means, and the distance to its centre; int and float [N].

    The centres begin apart (Arthur & Vassilvitskii 2007).
    """
    centers = points[[rng.integers(len(points))]]
    squares = ((points - centers) ** 2).sum(1)
    while len(centers) < count and squares.any():
        centers = np.append(centers, points[[rng.choice(len(points), p=squares / squares.sum())]], axis=0)
        squares = np.minimum(squares, ((points - centers[-1]) ** 2).sum(1))
    for _ in range(STEPS):
        # The nearest centre has the least squared distance, here without the square of the point.
        clusters = ((centers**2).sum(1) - 2 * points @ centers.T).argmin(1)
        means = [points[clusters == k].mean(0) if (clusters == k).any() else center for k, center in enumerate(centers)]
        if np.array_equal(means, centers):
            break
        centers = np.array(means)
    return clusters, np.linalg.norm(points - centers[clusters], axis=1)
