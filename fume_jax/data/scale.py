"""One scale for the frames of a recording: which numbers become black and white."""

import contextlib
from collections.abc import Callable, Mapping

import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.gray import luminance, recording_limits
from fume_jax.runtime.errors import UserError

# Frames, spread over a recording, that its scale is taken from.
SAMPLED = 24
# How the numbers of frames that are deeper than 8 bits become grey levels.
RECORDING, FRAME = "recording", "frame"

Limits = tuple[float, float]


def parse_range(text: str) -> str | Limits:
    """Returns `RECORDING`, `FRAME`, or the two numbers of LOW,HIGH; UserError for anything else."""
    if text in (RECORDING, FRAME):
        return text
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not -np.inf < low < high < np.inf:
        raise UserError(f"range is {text!r}; expected recording, frame, or LOW,HIGH in the unit of the frames.")
    return low, high


def find_limits(
    samples: Mapping[str, Callable[[int], list[np.ndarray]]], range: str | Limits
) -> tuple[dict[str, Limits], tuple[str, ...]]:
    """Returns the limits of each gas whose frames are deeper than 8 bits, and notes for the user.

    `samples` read about so many frames, spread over a recording, by gas. Without limits each frame has its own range.
    """
    limits, notes = {}, ()
    for gas, sample in samples.items():
        # One frame tells an 8-bit film; the first may be damaged.
        if all(frame.dtype == np.uint8 for frame in sample(1) or sample(SAMPLED)):
            if not isinstance(range, str):
                notes += (f"the frames of {gas.upper()} are grey levels already, which --range does not change",)
        elif not isinstance(range, str):
            limits[gas] = range
        elif range == RECORDING:
            frames = []
            for frame in sample(SAMPLED):
                with contextlib.suppress(UnreadableFrame, ValueError):  # reported when the frames are read
                    frames.append(luminance(frame))
            if len(frames) > 1 and (found := recording_limits(frames)) is not None:
                limits[gas] = found
    return limits, notes
