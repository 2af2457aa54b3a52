"""Why a frame cannot be used, and the largest frame that is read."""

import os

from fume_jax.runtime.errors import UserError

# Environment variable that raises the limit, as --max_megapixels does. Worker processes and the page inherit it.
LIMIT = "FUME_MAX_MEGAPIXELS"
# The default covers 8K video (33 megapixels). A small file can claim any size, and a pixel takes up to 50 bytes here.
DEFAULT_MEGAPIXELS = 40


class UnreadableFrame(Exception):
    """Signals an image without usable pixels; the message gives the reason."""


def max_pixels() -> int:
    """Returns the largest number of pixels of a frame; UserError if the variable holds no positive number."""
    text = os.environ.get(LIMIT) or str(DEFAULT_MEGAPIXELS)
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e6:
        raise UserError(f"{LIMIT}={text}: expected a number of megapixels, such as {DEFAULT_MEGAPIXELS}.")
    return int(limit * 1e6)


def check_size(height: int, width: int) -> None:
    """Raises UnreadableFrame if a frame has more pixels than `max_pixels`."""
    if height * width > max_pixels():
        raise UnreadableFrame(too_large(f"{width}x{height}"))


def too_large(size: str) -> str:
    """Returns the message that a frame of that size is above the limit."""
    limit = f"{max_pixels() / 1e6:g} megapixels"
    return f"{size} is more than {limit}; --max_megapixels, or the environment variable {LIMIT}, raises that limit"
