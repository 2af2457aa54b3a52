"""The stored form of a dataset of paired frames, which the trainer's input pipeline reads.

Pixels are stored as raw bytes: array_record compresses them, and reading needs neither TensorFlow nor a PNG decoder.
"""

import numpy as np
import tensorflow_datasets as tfds

from fume_jax.schema import CLASSES, GASES


def paired_frames(height: int, width: int, extra: dict | None = None) -> tfds.features.FeaturesDict:
    """Features of one pair of frames; `extra` are further ones of a single dataset.

    A missing gas has a frame and a mask of zeros and a 0 in `modality_mask`. `recording_index` numbers, over
    all splits, connected groups of recordings: pairs that share a recording, directly or through other pairs, have one
    number, so pairs of different numbers are independent. `frame_index` counts within a group.

    What holds of the whole dataset is in its metadata, as far as its maker knows it: `bounds`, scores that bound the
    task, and `leak`, in words, how splits share what they should not.
    """
    frame = tfds.features.Tensor(shape=(height, width, 1), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    mask = tfds.features.Tensor(shape=(height, width), dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
    return tfds.features.FeaturesDict(
        {f"{gas}_frame": frame for gas in GASES}
        | {f"{gas}_mask": mask for gas in GASES}
        | {
            "modality_mask": tfds.features.Tensor(shape=(len(GASES),), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=CLASSES),
            "ph": np.float32,
            "recording_index": np.int32,
            "frame_index": np.int32,
        }
        | (extra or {})
    )
