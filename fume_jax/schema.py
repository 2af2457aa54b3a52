"""Names that every part of the project shares: gases, classes, mask values, pH levels and the batch.

A batch is one dict with these keys (B examples of H x W pixels; one example is one pair of frames):

| key | dtype, shape | meaning |
| --- | --- | --- |
| `co2_frame`, `ch4_frame` | float32 [B, H, W, 1] | `(grey / 255 - 0.5) / 0.5` in [-1, 1]; 0.0 everywhere if absent |
| `co2_mask`, `ch4_mask` | int32 [B, H, W] | per pixel a class, `IGNORE` or `NOT_GAS`; all background if absent |
| `modality_mask` | float32 [B, 2] | 1.0 where the gas of `GASES` was recorded, else 0.0 |
| `labels` | int32 [B] | index into `CLASSES` |
| `valid` | bool [B] | False for padding, which nothing may count |
| `example_index` | int32 [B] | position in the split, -1 for padding |
| `recording_index` | int32 [B] | connected group of recordings that the pair belongs to, -1 for padding |

`modality_mask` alone says which gas is present: a frame of zeros may just as well be a grey one.

Pairs that share a recording, directly or through other pairs, have one `recording_index`. Pairs of one group depend on
each other, so resampling draws whole groups.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

GASES = ("co2", "ch4")
SPLITS = ("train", "val", "test")
CLASSES = ("Healthy", "Transitional", "Acidotic")
MASK_CLASSES = ("background", "tube", "gas")
BACKGROUND, TUBE, GAS = map(MASK_CLASSES.index, MASK_CLASSES)
# Values of annotated masks besides the classes, which no model predicts: a pixel of unknown class, which counts
# nowhere; and one that is background or tube, of recordings in which nobody outlined the tube.
IGNORE, NOT_GAS = 255, 254

# Class of each pH level of the in-vitro recordings.
PH_CLASS = {6.5: 0, 6.2: 0, 5.9: 1, 5.6: 2, 5.3: 2, 5.0: 2}


def batch_spec(batch_size: int, height: int, width: int) -> dict[str, Any]:
    """Returns shape and dtype of every entry of a batch, a `jax.ShapeDtypeStruct`, in the order of the table above."""
    import jax  # here, since prediction in ONNX Runtime does without it

    frame = jax.ShapeDtypeStruct((batch_size, height, width, 1), np.float32)
    mask = jax.ShapeDtypeStruct((batch_size, height, width), np.int32)
    index = jax.ShapeDtypeStruct((batch_size,), np.int32)
    return make_example(
        frames=dict.fromkeys(GASES, frame),
        masks=dict.fromkeys(GASES, mask),
        modality_mask=jax.ShapeDtypeStruct((batch_size, len(GASES)), np.float32),
        label=index,
        valid=jax.ShapeDtypeStruct((batch_size,), np.bool_),
        example_index=index,
        recording_index=index,
    )


def make_example(
    *, frames: Mapping[str, Any], masks: Mapping[str, Any], modality_mask, label, valid, example_index, recording_index
) -> dict[str, Any]:
    """Builds one example, an entry for each row of the table above without B; `frames` and `masks` are keyed by gas."""
    return {
        **{f"{gas}_frame": frames[gas] for gas in GASES},
        **{f"{gas}_mask": masks[gas] for gas in GASES},
        "modality_mask": modality_mask,
        "labels": label,
        "valid": valid,
        "example_index": example_index,
        "recording_index": recording_index,
    }
