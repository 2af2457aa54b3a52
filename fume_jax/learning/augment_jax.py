"""Applies the plans of `learning.augment` in JAX, inside `jit` and `vmap`; shapes never depend on values.

The same plan gives the same image as `data.transforms`, except for the noise, which has another generator, and for
rounding (versions of OpenCV before 5 move by 1/32 of a pixel at a time). Only entries that a plan has are compiled.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fume_jax.learning.augment import NORMALIZED
from fume_jax.schema import GASES, IGNORE


def apply(example: Mapping[str, jax.Array], plan: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns frames, masks and `modality_mask` of an example as a batch holds them, see `fume_jax.schema`.

    `example` has uint8 `{gas}_frame` [H, W, 1] and `{gas}_mask` [H, W] and float32 `modality_mask` [2]. An empty `plan`
    changes nothing.
    """
    frames = jnp.stack([example[f"{gas}_frame"][..., 0] for gas in GASES])
    masks = jnp.stack([example[f"{gas}_mask"] for gas in GASES])
    if "matrix" in plan:
        frames, masks = _move(frames, masks, plan)
    if "deviation" in plan:
        noise = jax.random.normal(jax.random.key(plan["noise_seed"]), frames.shape)
        frames = _to_levels(frames.astype(jnp.float32) + plan["deviation"] * noise)
    if "kernel" in plan:
        frames = _filter(frames, plan["kernel"])
    present = example["modality_mask"]
    if "dropped" in plan:
        dropped = (jnp.arange(len(GASES)) == plan["dropped"]) & (present.sum() == len(GASES))
        present *= (~dropped).astype(present.dtype)
    values = jnp.asarray(NORMALIZED)
    if "levels" in plan:
        values = values[plan["levels"]]
    changed = {"modality_mask": present}
    for i, gas in enumerate(GASES):
        # A gas is dropped last: no operation mixes its pixels with those of another gas.
        changed[f"{gas}_frame"] = (values * present[i])[frames[i]][..., None]
        changed[f"{gas}_mask"] = masks[i].astype(jnp.int32) * present[i].astype(jnp.int32)
    return changed


def _move(frames, masks, plan):
    """Takes every pixel of all images [2, H, W] from where the plan says, interpolating frames but not masks."""
    height, width = masks.shape[1:]
    x, y = _source(plan, height, width)
    left, top = jnp.floor(x), jnp.floor(y)
    right_share, bottom_share = x - left, y - top
    # One number of 32 bits holds a pixel of all four images, so that one look-up serves all.
    images = jnp.concatenate([frames, masks]).astype(jnp.uint32)
    packed = (images << (8 * jnp.arange(len(images), dtype=jnp.uint32))[:, None, None]).sum(0, dtype=jnp.uint32)
    outside = jnp.uint32(sum(IGNORE << (8 * i) for i in range(len(frames), len(images))))

    def corner(down, right):
        row, column = top.astype(jnp.int32) + down, left.astype(jnp.int32) + right
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        found = jnp.take(packed.ravel(), row * width + column, mode="clip")
        found = jnp.where(inside, found, outside)
        return [(found >> (8 * i)) & 255 for i in range(len(images))]

    moved = []
    for i, (a, b, c, d) in enumerate(zip(*(corner(*at) for at in ((0, 0), (0, 1), (1, 0), (1, 1))), strict=True)):
        if i < len(frames):
            a, b, c, d = (pixels.astype(jnp.float32) for pixels in (a, b, c, d))
            above, below = a + (b - a) * right_share, c + (d - c) * right_share
            moved.append(_to_levels(above + (below - above) * bottom_share))
        else:
            right, below = right_share >= 0.5, bottom_share >= 0.5
            moved.append(jnp.where(below, jnp.where(right, d, c), jnp.where(right, b, a)).astype(jnp.uint8))
    return jnp.stack(moved[: len(frames)]), jnp.stack(moved[len(frames) :])


def _source(plan, height, width):
    """Returns the position that every pixel is taken from: x and y, float32 [H, W]."""
    x, y = jnp.arange(width, dtype=jnp.float32)[None], jnp.arange(height, dtype=jnp.float32)[:, None]
    source = [a * x + (b * y + c) for a, b, c in plan["matrix"]]
    if "nodes" in plan:
        rows, columns = (_cubic(n, size) for n, size in zip(plan["nodes"].shape, (height, width), strict=False))
        field = jnp.einsum("yh,xw,hwc->cyx", rows, columns, plan["nodes"], precision="highest")
        source = [along + moved for along, moved in zip(source, field, strict=True)]
    return source


def _cubic(nodes, size):
    """Builds the matrix [size, nodes] of OpenCV's cubic interpolation: a = -0.75, the ends repeated."""
    at = (np.arange(size) + 0.5) * nodes / size - 0.5
    first = np.floor(at).astype(int)
    matrix = np.zeros((size, nodes), np.float32)
    for tap in range(-1, 3):
        distance = np.abs(at - (first + tap))
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = ((-0.75 * distance + 3.75) * distance - 6) * distance + 3
        weights = np.where(distance <= 1, near, far)
        np.add.at(matrix, (np.arange(size), np.clip(first + tap, 0, nodes - 1)), weights)
    return matrix


def _filter(frames, kernel):
    """Filters frames [2, H, W], which are mirrored beyond their edges."""
    size, (_, height, width) = len(kernel), frames.shape
    padding = (size // 2, size // 2)
    padded = jnp.pad(frames, ((0, 0), padding, padding), mode="reflect")

    def tap(i, j):
        return kernel[i, j] * padded[:, i : i + height, j : j + width].astype(jnp.float32)

    return _to_levels(sum(tap(i, j) for i, j in np.ndindex(size, size)))


def _to_levels(values):
    return jnp.clip(jnp.round(values), 0, 255).astype(jnp.uint8)
