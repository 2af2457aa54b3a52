"""Perceptual hashes of frames: which parts are brighter than what surrounds them, and how many bits of two differ."""

import numpy as np

# Blocks along each side of a frame, and of the square that a block is compared with.
SIDE, AROUND = 16, 5
# Hashes that are compared with all others at a time.
_COMPARED = 1024


def perceptual_hash(frame: np.ndarray) -> str:
    """Returns 256 bits in hexadecimal that say what a frame, uint8 [H, W] or [H, W, 1], looks like.

    Each of 16 x 16 blocks has a bit: whether its mean is above that of the 5 x 5 blocks around it. Brightness,
    contrast, gradients of the background, noise and size hardly change it. All numbers are whole, so every machine
    finds the same bits.
    """
    sums, counts = frame.reshape(frame.shape[:2]).astype(np.int64), 1
    for axis, size in enumerate(frame.shape[:2]):
        starts = np.arange(SIDE) * size // SIDE
        sums = np.add.reduceat(sums, starts, axis=axis)
        widths = np.maximum(np.diff([*starts, size]), 1)  # of fewer than 16 pixels, some count for several blocks
        counts = counts * np.expand_dims(widths, 1 - axis)
    means = 256 * sums // counts
    around = np.lib.stride_tricks.sliding_window_view(np.pad(means, AROUND // 2, "reflect"), (AROUND, AROUND))
    return np.packbits(AROUND**2 * means > around.sum((2, 3))).tobytes().hex()


def bits(hashes: list[str]) -> np.ndarray:
    """Returns the bits of hashes as -1 and 1, float32 [N, 256]."""
    data = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), SIDE**2 // 8)
    return np.unpackbits(data, axis=1).astype(np.float32) * 2 - 1


def nearest(
    own: np.ndarray, others: np.ndarray, groups: np.ndarray, other_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the hash of another group that is nearest to each of `own`.

    `own` and `others` are `bits`, and the groups numbers, int [N]. Returns the indices among the others, int [N], and
    how many bits differ, float [N], infinite if all others are of the same group.
    """
    index, distance = [np.zeros(0, int)], [np.zeros(0)]
    for start in range(0, len(own), _COMPARED):
        block = slice(start, start + _COMPARED)
        # The product counts the bits that agree, less those that differ.
        agreement = own[block] @ others.T
        agreement[groups[block, None] == other_groups] = -np.inf
        index.append(agreement.argmax(axis=1))
        distance.append((own.shape[1] - agreement.max(axis=1)) / 2)
    return np.concatenate(index), np.concatenate(distance)
