"""Class of a recording from the class probabilities of its frames, and how sure it is; in numpy.

Frames of a film are alike. An average over them is as good as one over fewer, independent frames; how many, the
autocorrelation tells. What all frames of a recording have in common, such as scene and camera, no comparison of its
frames with each other can tell.
"""

import dataclasses

import numpy as np

from fume_jax.learning.probabilities import softmax, student_quantile

# Least probability of a class in a frame, so that none decides a recording alone by a probability of 0.
FLOOR = 1e-6
RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
# Quantile of the normal distribution at the upper end of the interval.
NORMAL = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class ClassSummary:
    """Class of a recording, see `summarize_class`."""

    index: int
    probability: float
    interval: tuple[float, float] | None
    agreement: float
    frames: int
    effective_frames: float


def pool_probabilities(probabilities: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Pools the class probabilities of the frames of each recording by their geometric mean, normalised.

    This is the logarithmic opinion pool of equal weights, which sum to 1 (Genest & Zidek 1986,
    doi:10.1214/ss/1177013825). Independent evidence would call for the product, the same with weights of 1, which is
    sure of a class after a few frames. But what makes a model err about a recording is in all of its frames: they share
    scene, camera and emission, so that no number of frames makes a recording more certain than they are alone. The
    class is the same either way.

    Args:
      probabilities: float [N, C]; below 1e-6 they count as 1e-6.
      groups: int [N], from 0, the recording of each frame.

    Returns:
      float64 [G, C], G being the highest group plus 1; equal probabilities for a group without frames.
    """
    logs = np.log(np.maximum(np.asarray(probabilities, np.float64), FLOOR))
    sums = np.zeros((int(groups.max(initial=-1)) + 1, logs.shape[1]))
    np.add.at(sums, groups, logs)
    counts = np.bincount(groups, minlength=len(sums))
    return softmax(sums / np.maximum(counts, 1)[:, None])


def pool_recordings(
    probabilities: np.ndarray, labels: np.ndarray, recordings: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pools the frames of each recording by `pool_probabilities`.

    Frames of one recording number that have several labels, as recordings that frames of others connect may have, are a
    recording for each label.

    Args:
      probabilities: float [N, C], of frames or pairs of frames.
      labels: int [N], the true class.
      recordings: int [N], the recording of each: `recording_index`; no padding.

    Returns:
      Probabilities, float64 [R, C], label and number of each recording, int [R].
    """
    keys, groups = np.unique(np.stack([recordings, labels], -1), axis=0, return_inverse=True)
    return pool_probabilities(probabilities, groups.reshape(-1)), keys[:, 1], keys[:, 0]


def recording_confusions(
    probabilities: np.ndarray, labels: np.ndarray, recordings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Classifies recordings by `pool_recordings`, whose arguments it takes, and counts the confusion of each.

    Returns confusions, int64 [R, C, C] with a single 1 each, truth in rows, and the number of each recording, int [R].
    """
    pooled, labels, numbers = pool_recordings(probabilities, labels, recordings)
    confusions = np.zeros((len(pooled), *2 * pooled.shape[1:]), np.int64)
    confusions[np.arange(len(pooled)), labels, pooled.argmax(-1)] = 1
    return confusions, numbers


def summarize_class(probabilities: np.ndarray, shown: np.ndarray) -> ClassSummary | None:
    """Decides the class of a recording from its frames that show gas, or from all if none does.

    The probability is that of `pool_probabilities`. Its 95 % interval says how much it depends on which moments were
    filmed: it is a moving-block bootstrap of the mean log-probabilities (Künsch 1989, doi:10.1214/aos/1176347265),
    with blocks as long as suits the autocorrelation of the log-odds of the class (Carlstein 1986,
    doi:10.1214/aos/1176350057). Few blocks scatter too little, so the draws are stretched around their mean until the
    log-odds have the standard error s / sqrt(n - 1) of the effective number n of frames, times the ratio of the
    quantiles of Student's t and of the normal distribution. With n < 2, as for one frame or copies of it, there is no
    interval.

    Args:
      probabilities: float [N, C] in the order of time; frames that were not classified are NaN and left out. Frames
        count as evenly spaced.
      shown: bool [N], the frames that show gas, see `shows_gas`.

    Returns:
      Index of the class, its probability and interval, the share of the frames used whose own class it is, their
      number, and their effective number (`effective_number`). None without a classified frame.
    """
    probabilities = np.asarray(probabilities, np.float64)
    classified = np.isfinite(probabilities).all(1)
    used = classified & shown if (classified & shown).any() else classified
    values = probabilities[used]
    if not len(values):
        return None
    pooled = pool_probabilities(values, np.zeros(len(values), int))[0]
    index = int(pooled.argmax())
    logs = np.log(np.maximum(values, FLOOR))
    odds = logs[:, index] - np.log(np.maximum(1 - values[:, index], FLOOR))
    effective = effective_number(odds)
    return ClassSummary(
        index=index,
        probability=float(pooled[index]),
        interval=_interval(logs, odds, index, effective) if effective >= 2 else None,
        agreement=float((values.argmax(1) == index).mean()),
        frames=len(values),
        effective_frames=effective,
    )


def effective_number(series: np.ndarray) -> float:
    """Returns how many independent values have a mean of the same variance as that of a series, float [N].

    It is N / (1 + 2 sum of the autocorrelations), at least 1 and at most N, with the sum cut off by the initial
    positive sequence (Geyer 1992, doi:10.1214/ss/1177011137). A constant series counts as one value.
    """
    n, series = len(series), series - np.mean(series)
    variance = np.mean(series**2)
    if n < 2 or variance <= 1e-18:
        return 1.0
    spectrum = np.fft.rfft(series, 2 * n)
    correlation = np.fft.irfft(abs(spectrum) ** 2, 2 * n)[:n] / (n * variance)
    pairs = correlation[: n // 2 * 2].reshape(-1, 2).sum(1)
    ends = np.flatnonzero(pairs <= 0)
    time = 2 * pairs[: ends[0] if len(ends) else None].sum() - 1
    return float(np.clip(n / max(time, 1.0), 1.0, n))


def _interval(logs, odds, index, effective):
    """Returns the interval of the pooled probability of a class from log-probabilities [N, C] and its log-odds [N]."""
    n = len(logs)
    time = n / effective
    # Carlstein's length for an autoregression of this autocorrelation time.
    length = int(np.clip(np.ceil((6**0.5 / 4 * (time - 1 / time)) ** (2 / 3) * n ** (1 / 3)), 1, max(n // 2, 1)))
    starts = np.random.default_rng(SEED).integers(0, n - length + 1, (RESAMPLES, -(-n // length)))
    lengths = np.full(starts.shape[1], length)
    lengths[-1] = n - length * (len(lengths) - 1)
    # Sums of blocks from sums of all frames before.
    series = np.column_stack([logs, odds])
    before = np.concatenate([np.zeros((1, series.shape[1])), np.cumsum(series - series.mean(0), 0)])
    deviations = (before[starts + lengths] - before[starts]).sum(1) / n
    deviations -= deviations.mean(0)  # frames at both ends are in fewer blocks
    error = odds.std() / np.sqrt(effective - 1) * student_quantile(effective - 1, (1 + LEVEL) / 2)
    deviations *= error / max(deviations[:, -1].std() * NORMAL, 1e-300)
    draws = softmax(logs.mean(0) + deviations[:, :-1])[:, index]
    return tuple(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist())
