"""Offset between the clocks of two cameras that filmed one release, from their curves of gas area; in numpy.

The rate of release flickers, and the areas of both gases follow it. What they share shows as the peak of their
normalised cross-correlation, taken over the samples that both have (Padfield 2012, doi:10.1109/TIP.2011.2181402). Slow
trends are removed before: any two of them correlate.

Whether a peak is more than chance depends on how many independent samples there are. Two series without relation, whose
autocorrelations are r1 and r2, have a correlation of the variance of n / sum_k (1 - |k| / n) r1(k) r2(k) independent
samples (Bartlett 1946, doi:10.2307/2983611; Pyper & Peterman 1998, doi:10.1139/f98-104).
"""

import dataclasses

import numpy as np
from scipy import signal, special

# Duration in seconds over which a trend is removed: several times that of a flicker of the release.
TREND = 4.0
# A pause between samples of more than so many intervals is a gap, which is not interpolated.
GAP = 2.5
# Share of the shorter curve over which the two must overlap.
OVERLAP = 0.5
# Chance that any of the lags of curves without relation is taken for the offset.
LEVEL = 0.001
# The largest standard error of a clear offset, in intervals of the faster camera: two of them are a frame.
PRECISION = 0.5
# Least correlation of a peak. The standard errors suppose noise around one signal; below, the curves share less than
# half of their variance, and what is left is often a signal of its own.
LEAST_PEAK = 0.7
# Highest correlation that counts: near 1, Fisher's transform would make much of differences that mean nothing.
MOST_PEAK = 0.99
# Standard errors by which the peak must stand out from the next one.
MARGIN = 2.0
# Offsets of the halves of a recording are looked for within so many seconds of that of the whole.
DRIFT_RANGE = 1.0


@dataclasses.dataclass(frozen=True)
class Offset:
    """Offset of a second clock against a first one, see `estimate_offset`; None where it is not clear.

    An event at `t` of the first clock is at `t + seconds` of the second, so that `second_times - seconds` are times of
    the first. `peak` is the highest correlation, in [-1, 1], 0.0 if none can be computed. `drift_seconds` is the offset
    in the second half of the recording less that in the first: the second clock runs fast if it is positive.
    """

    seconds: float | None
    peak: float
    drift_seconds: float | None

    @property
    def clear(self) -> bool:
        return self.seconds is not None


def estimate_offset(
    first_times: np.ndarray,
    first_areas: np.ndarray,
    second_times: np.ndarray,
    second_areas: np.ndarray,
    *,
    max_offset: float = 10.0,
) -> Offset:
    """Estimates the offset between the clocks of two cameras from their curves of gas area.

    Both curves are sampled at the higher of their rates, and freed of trends over more than 4 s. The offset is where
    their correlation peaks, to a fraction of a sample by a parabola. It is clear, and not refused, if

    - the peak is at least 0.7, and so high that less than one in a thousand pairs of curves without relation would have
      one in the range: by Fisher's transform of the correlation, given the number of independent samples, and Sidak's
      correction for the number of independent lags;
    - it stands out by two standard errors from the next one, at least a correlation time away;
    - the standard error of the offset is at most half a sample: by the delta method sqrt((1 - r^2) / (n r c)) for the
      correlation r of n independent samples and its second derivative -c at the peak;
    - it does not lie at an end of the range, where the correlation may still be rising.

    Args:
      first_times, first_areas: increasing times of a camera in seconds, and areas in any unit, float [N]. Times may
        have gaps; NaN areas are gaps too.
      second_times, second_areas: those of the other camera, float [M].
      max_offset: the largest offset either way, in seconds. Offsets at which less than half of the shorter curve, or
        less than 4 s, overlaps with the other are not considered.

    Raises:
      ValueError: if times do not increase.
    """
    times = [np.asarray(t, np.float64) for t in (first_times, second_times)]
    areas = [np.asarray(a, np.float64) for a in (first_areas, second_areas)]
    if any((np.diff(t) <= 0).any() for t in times):
        raise ValueError("Times must increase.")
    if min(map(len, times)) < 3:
        return Offset(None, 0.0, None)
    rate = 1 / min(float(np.median(np.diff(t))) for t in times)
    first, second = (_fluctuation(_resample(t, a, rate), rate) for t, a in zip(times, areas, strict=True))
    shift = float(times[1][0] - times[0][0])
    seconds, peak = _find(first, second, rate, shift, (-max_offset, max_offset))
    if seconds is None:
        return Offset(None, peak, None)
    reach = (max(seconds - DRIFT_RANGE, -max_offset), min(seconds + DRIFT_RANGE, max_offset))
    early, late = (first.copy() for _ in range(2))
    early[len(first) // 2 :] = late[: len(first) // 2] = np.nan
    before, after = (_find(half, second, rate, shift, reach)[0] for half in (early, late))
    return Offset(seconds, peak, None if before is None or after is None else after - before)


def _resample(times, areas, rate):
    """Interpolates a curve at `rate` per second from its first time on; NaN in gaps."""
    step = float(np.median(np.diff(times)))
    grid = times[0] + np.arange(int((times[-1] - times[0]) * rate + 1e-6) + 1) / rate
    known = np.isfinite(areas)
    times, areas = times[known], areas[known]
    if len(times) < 2:
        return np.full(len(grid), np.nan)
    right = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    gap = times[right] - times[right - 1] > GAP * step
    tolerance = 1e-6 / rate
    outside = (grid < times[0] - tolerance) | (grid > times[-1] + tolerance)
    at_sample = np.minimum(abs(grid - times[right]), abs(grid - times[right - 1])) < tolerance
    return np.where(outside | (gap & ~at_sample), np.nan, np.interp(grid, times, areas))


def _fluctuation(curve, rate):
    """Subtracts from a curve the line that fits it in a window of `TREND` seconds around each sample; NaN stays NaN.

    A mean in its place would leave of every trend the same bends at both ends.
    """
    half = round(TREND * rate / 2)
    window, place = signal.windows.hann(2 * half + 3)[1:-1], np.arange(half, -half - 1, -1) / half
    known = np.isfinite(curve)
    level = curve[known].mean() if known.any() else 0.0

    def moment(values, power):
        return signal.convolve(values, window * place**power, "full")[half:][: len(curve)]

    w0, w1, w2 = (moment(known * 1.0, power) for power in range(3))
    y0, y1 = (moment(np.where(known, curve - level, 0.0), power) for power in range(2))
    # A sample alone in its window has no line through it, and is its own mean.
    spread, w0 = w0 * w2 - w1**2, np.maximum(w0, 0.5)
    line = np.where(spread > 1e-6 * w0**2, (w2 * y0 - w1 * y1) / np.maximum(spread, 1e-6 * w0**2), y0 / w0)
    rest = np.where(known, curve - level - line, np.nan)
    # What rounding leaves of a line is no fluctuation.
    return np.where(abs(rest) > 1e-9 * np.max(abs(curve), initial=0.0, where=known), rest, 0 * rest)


def _find(first, second, rate, shift, reach):
    """Returns the offset between two fluctuations in seconds, None if it is not clear, and the highest correlation.

    `shift` is the offset at which both begin together, and `reach` the range of offsets.
    """
    lags, counts, correlation = _cross_correlation(first, second)
    offsets = shift + lags / rate
    # What is shorter than the window of the trend has no trend to tell from a fluctuation.
    least = max(OVERLAP * min(np.isfinite(first).sum(), np.isfinite(second).sum()), TREND * rate)
    allowed = (counts >= least) & (offsets >= reach[0]) & (offsets <= reach[1]) & np.isfinite(correlation)
    if allowed.sum() < 3:
        return None, 0.0
    offsets, counts, correlation = offsets[allowed], counts[allowed], correlation[allowed]
    best = int(correlation.argmax())
    peak = float(correlation[best])
    if not (0 < best < len(correlation) - 1) or peak < LEAST_PEAK:
        return None, peak
    per_sample = _dependence(first, second)
    independent = max(counts[best] / per_sample, 3 + 1e-9)
    error = 1 / np.sqrt(independent - 3)
    chance = -np.expm1(np.log1p(-LEVEL) / max(len(offsets) / per_sample, 1.0))
    height, other = np.arctanh(np.clip([peak, _next_peak(correlation, best, per_sample)], 0, MOST_PEAK))
    low, middle, high = correlation[best - 1 : best + 2]
    bend = 2 * middle - low - high
    spread = np.sqrt((1 - peak**2) / (max(bend, 1e-300) * peak * independent))
    if height < -special.ndtri(chance) * error or height - other < MARGIN * error or spread > PRECISION:
        return None, peak
    return float(offsets[best] + 0.5 * (high - low) / bend / rate), peak


def _cross_correlation(first, second):
    """Returns lags in samples, int [K], by which the second is later; samples in common; correlations, NaN if flat."""
    known = [np.isfinite(x).astype(np.float64) for x in (first, second)]
    x, y = (np.nan_to_num(values) for values in (first, second))
    x, y = (values / max(values.std(), 1e-300) for values in (x, y))

    def sums(a, b):
        return signal.correlate(b, a, "full", "fft" if len(a) + len(b) > 500 else "direct")

    n = np.round(sums(*known))
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = sums(x, known[1]) / n, sums(known[0], y) / n
        var_x = sums(x * x, known[1]) / n - mean_x**2
        var_y = sums(known[0], y * y) / n - mean_y**2
        flat = (n < 1) | (var_x < 1e-6) | (var_y < 1e-6)  # relative to the whole curves
        correlation = np.where(flat, np.nan, (sums(x, y) / n - mean_x * mean_y) / np.sqrt(var_x * var_y))
    return np.arange(len(n)) - (len(first) - 1), n, np.clip(correlation, -1, 1)


def _dependence(first, second):
    """Returns how many samples of the two count as one independent sample, at least 1."""
    curves = []
    for values in (first, second):
        lags, _, correlation = _cross_correlation(values, values)
        curves.append(np.nan_to_num(correlation[lags >= 0]))
    # Later lags add noise alone (Pyper & Peterman take a fifth of the series).
    length = max(min(map(len, curves)) // 5, 2)
    r = curves[0][:length] * curves[1][:length]
    n = min(len(first), len(second))
    return max(1.0, float(r[0] + 2 * ((1 - np.arange(1, length) / n) * r[1:]).sum()))


def _next_peak(correlation, best, apart):
    """Returns the highest local maximum at least `apart` samples from the highest one, -1 if there is none."""
    rising = np.diff(correlation) > 0
    tops = 1 + np.flatnonzero(rising[:-1] & ~rising[1:])
    tops = tops[abs(tops - best) >= max(apart, 2)]
    return float(correlation[tops].max()) if len(tops) else -1.0
