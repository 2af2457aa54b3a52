"""Defines the flag of the commands that read frames of the user."""

import os

from absl import flags

from fume_jax.data.faults import DEFAULT_MEGAPIXELS, LIMIT

_MAX_MEGAPIXELS = flags.DEFINE_float(
    "max_megapixels",
    None,
    f"Largest frame or mask that is read, in millions of pixels; {DEFAULT_MEGAPIXELS} if unset.",
    lower_bound=0,
)


def apply() -> None:
    """Sets the limit for this process and its workers; call it before images are imported."""
    if _MAX_MEGAPIXELS.value is not None:
        os.environ[LIMIT] = str(_MAX_MEGAPIXELS.value)
