"""What the frames of one recording say together: its class, measures of its plumes, onsets of gas; in numpy."""

from collections.abc import Mapping

import numpy as np

from fume_jax.learning.recording_class import summarize_class
from fume_jax.schema import CLASSES

# Share of the frame from which gas counts as shown, 307 pixels of 640x480; half of it is where gas that was there ends.
SHOWN = 0.001
# Seconds without gas before gas that appears is an onset: a plume that flickers is not released anew.
QUIET = 1.0
# An interval between frames of more than so many usual ones is a pause, of which nothing is known.
PAUSE = 5.0


def shows_gas(
    areas: Mapping[str, np.ndarray], frame_pixels: Mapping[str, float], *, share: float = SHOWN
) -> np.ndarray:
    """Says which frames show gas, bool [N]: at least `share` of the frame is gas, of one gas at least.

    `areas` are pixels of gas by gas, float [N], NaN where a gas is absent, and `frame_pixels` the sizes of the frames.
    """
    return np.any([np.nan_to_num(values) >= share * frame_pixels[gas] for gas, values in areas.items()], axis=0)


def time_share(times: np.ndarray, shown: np.ndarray) -> float | None:
    """Returns the share of time with gas; half of each interval between frames is like either frame.

    `times` are float [N], increasing, in seconds, and `shown` bool [N]. Pauses do not count. Returns None without
    frames; of single frames the share of the frames.
    """
    if not len(times):
        return None
    steps = np.where(_pauses(times), 0.0, np.diff(times))
    weights = (np.append(steps, 0) + np.append(0, steps)) / 2
    return float(np.average(shown, weights=weights if weights.any() else None))


def find_onsets(
    times: np.ndarray, areas: np.ndarray, frame_pixels: float, *, share: float = SHOWN, quiet: float = QUIET
) -> list[float]:
    """Finds the times at which gas appears after at least `quiet` seconds without it.

    Gas appears in a frame with at least `share` of gas, and has ended in one with less than half of that. How long it
    is gone is counted from the first frame without it, or from the first one after a pause: what was before is not
    known.

    Args:
      times: float [N], increasing, in seconds.
      areas: pixels of gas, float [N], no NaN.
      frame_pixels: number of pixels of a frame.
    """
    onsets, gone_since, paused = [], None, np.append(True, _pauses(times))[: len(times)]
    for time, area, unknown in zip(times, areas / frame_pixels, paused, strict=True):
        if unknown:
            gone_since = time if area < share else None
        elif area >= share:
            if gone_since is not None and time - gone_since >= quiet:
                onsets.append(float(time))
            gone_since = None
        elif area < share / 2 and gone_since is None:
            gone_since = time
    return onsets


def quartiles(values: np.ndarray) -> tuple[float, float, float] | None:
    """Returns first quartile, median and third quartile of the values, float [N], that are not NaN; None of none."""
    values = values[~np.isnan(values)]
    return tuple(np.quantile(values, [0.25, 0.5, 0.75]).tolist()) if len(values) else None


def circular_quartiles(degrees: np.ndarray) -> tuple[float, float, float] | None:
    """Returns quartiles of directions, in (-180, 180]: those of the deviations from the mean direction.

    The first quartile is clockwise from the median. None of no direction, or if they cancel out, so that there is no
    mean direction (Mardia & Jupp 2000, Directional Statistics, doi:10.1002/9780470316979).
    """
    degrees = degrees[~np.isnan(degrees)]
    mean = np.exp(1j * np.radians(degrees)).mean() if len(degrees) else 0.0
    if abs(mean) < 1e-9:
        return None
    center = np.degrees(np.angle(mean))
    deviations = quartiles(180 - (180 - (degrees - center)) % 360)
    return tuple(float(180 - (180 - (center + x)) % 360) for x in deviations)


def summarize_recording(
    times: np.ndarray,
    probabilities: np.ndarray,
    measures: Mapping[str, Mapping[str, np.ndarray]],
    frame_pixels: Mapping[str, float],
) -> dict[str, str | int | float | list[float] | None]:
    """Summarizes one recording as flat values by column; None where there is nothing to tell.

    | column | meaning |
    | --- | --- |
    | `class`, `probability` | see `summarize_class` |
    | `probability_low`, `probability_high` | ends of its 95 % interval over the moments of the recording |
    | `agreement` | share of the frames used for the class that have it themselves |
    | `frames`, `frames_with_gas` | number of frames; of those that show a gas |
    | `frames_used`, `effective_frames` | number of frames used for the class; of independent ones that say as much |
    | `{gas}_{measure}_median`, `_q1`, `_q3` | median and quartiles over the frames that show the gas |
    | `{gas}_gas_time_share`, `{gas}_onsets` | share of time that shows the gas; list of seconds |

    Args:
      times: float [N], increasing, in seconds.
      probabilities: float [N, 3] of `CLASSES`, NaN where a frame was not classified.
      measures: by gas, `area` in pixels, float [N], NaN where the gas is absent, and more measures of each frame,
        float [N], NaN where there is none: `length`, `direction` in degrees, `contrast`.
      frame_pixels: number of pixels of a frame, by gas.

    Raises:
      ValueError: if times do not increase.
    """
    if (np.diff(times) <= 0).any():
        raise ValueError("Times must increase.")
    areas = {gas: values["area"] for gas, values in measures.items()}
    shown = shows_gas(areas, frame_pixels) if areas else np.zeros(len(times), bool)
    found = summarize_class(probabilities, shown)
    low, high = (found and found.interval) or (None, None)
    summary = {
        "class": found and CLASSES[found.index],
        "probability": found and found.probability,
        "probability_low": low,
        "probability_high": high,
        "agreement": found and found.agreement,
        "frames": len(times),
        "frames_with_gas": int(shown.sum()),
        "frames_used": found.frames if found else 0,
        "effective_frames": found and found.effective_frames,
    }
    for gas, values in measures.items():
        own = shows_gas({gas: values["area"]}, frame_pixels)
        known = ~np.isnan(values["area"])
        for name, series in values.items():
            ends = (circular_quartiles if name == "direction" else quartiles)(series[own]) or (None, None, None)
            summary |= {f"{gas}_{name}_{key}": ends[i] for i, key in ((1, "median"), (0, "q1"), (2, "q3"))}
        summary[f"{gas}_gas_time_share"] = time_share(times[known], own[known])
        summary[f"{gas}_onsets"] = find_onsets(times[known], values["area"][known], frame_pixels[gas])
    return summary


def _pauses(times):
    """Says which intervals [N - 1] between frames are pauses."""
    steps = np.diff(times)
    return steps > PAUSE * np.median(steps) if len(steps) else np.zeros(0, bool)
