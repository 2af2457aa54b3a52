"""TFDS builder of annotated recordings, which TFDS calls manual downloads. It needs no TensorFlow."""

import collections
import dataclasses
import functools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from scipy import sparse

from datasets.fume_ogi.annotations import Row
from datasets.fume_ogi.content import read_labelled, read_mask
from datasets.fume_ogi.groups import LEVELS, group_of
from datasets.fume_ogi.plan import Options, make_plan, statistics
from datasets.paired_frames import PairedFramesBuilder
from fume_jax.data.transforms import resize_frame, resize_mask
from fume_jax.schema import GASES


@dataclasses.dataclass(kw_only=True)
class FumeOgiConfig(tfds.core.BuilderConfig):
    """Size of the stored frames in pixels, and the options that make splits and pairs of recordings."""

    height: int = 480
    width: int = 640
    options: Options = dataclasses.field(default_factory=Options)


# Ids of a frame that are stored.
IDS = (*LEVELS, "augmentation")


class FumeOgi(PairedFramesBuilder):
    """Pairs of annotated OGI frames with plume masks and pH class."""

    VERSION = tfds.core.Version("1.3.0")
    RELEASE_NOTES = {
        "1.3.0": "Splits and recording_index by recording or subject; masks may hold 254, not gas, and 255, unknown.",
        "1.2.0": "Upright images, masks resized by vote, grey levels from the range of the scene.",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder of frames, masks and CSV files, see datasets/fume_ogi/README.md."
    # TFDS's own tools use these; the command makes a config for the size of the frames.
    BUILDER_CONFIGS = [
        FumeOgiConfig(name="original", description="No original, recording or subject is in two splits."),
        FumeOgiConfig(name="published", description="The splits of the files.", options=Options(split="published")),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        ids = (f"{gas}_{name}" for gas in GASES for name in IDS)
        return self._create_info(dict.fromkeys(ids, tfds.features.Text()))

    def _create_pool(self):
        return ThreadPoolExecutor(os.cpu_count())

    def _shard_iterators_per_split(self, dl_manager):
        source, config = Path(dl_manager.manual_dir), self.builder_config
        plan = make_plan(source, config.options)
        self.info.metadata.update(
            leak=plan.leak,
            group_by=plan.group_by,
            label_sources=dict(plan.label_sources),
            statistics=statistics(plan.pairs),
            fingerprint=plan.fingerprint(config.height, config.width),
            options=dataclasses.asdict(config.options),
            ranges=plan.ranges(source),
        )
        read = functools.partial(_example, source, config.height, config.width)
        pairs = sum(len(rows) for rows in plan.pairs.values())
        return self._shards(read, _numbered(plan.pairs, plan.group_by), pairs=pairs, most_pairs=1)

    def _keyed(self, split, example):
        yield f"{example['recording_index']:06d}_{example['frame_index']:04d}", example


def _numbered(pairs: dict[str, list[Row]], level: str) -> dict[str, list[tuple[Row, int, int]]]:
    """Numbers what is connected of the groups of `level` that each pair ties, and the pair within it.

    Pairs that share a group, directly or through other pairs, have one number. The numbers follow the first group of
    each, so they do not depend on the order of the pairs.
    """
    of_rows = [[group_of(frame, level) for frame in row.frames] for rows in pairs.values() for row in rows]
    place = {group: i for i, group in enumerate(sorted({group for tied in of_rows for group in tied}))}
    ends = [(place[tied[0]], place[tied[-1]]) for tied in of_rows]
    tied = sparse.coo_array((np.ones(len(ends)), np.transpose(ends)), (len(place), len(place)))
    component = sparse.csgraph.connected_components(tied, directed=False)[1]
    number = {label: i for i, label in enumerate(dict.fromkeys(component))}
    seen, numbered = collections.Counter(), {}
    for split, rows in pairs.items():
        numbered[split] = []
        for row in rows:
            index = number[component[place[group_of(row.frames[0], level)]]]
            numbered[split].append((row, index, seen[index]))
            seen[index] += 1
    return numbered


def _example(source, height, width, numbered):
    row, recording, index = numbered
    zeros = np.zeros((height, width), np.uint8)
    example = {
        "modality_mask": np.zeros(len(GASES), np.float32),
        "label": row.label,
        "ph": row.ph,
        "recording_index": recording,
        "frame_index": index,
    }
    for gas in GASES:
        example |= {f"{gas}_frame": zeros[..., None], f"{gas}_mask": zeros}
        example |= {f"{gas}_{name}": "" for name in IDS}
    for frame in row.frames:
        example["modality_mask"][GASES.index(frame.gas)] = 1
        example |= {
            f"{frame.gas}_frame": resize_frame(
                read_labelled(source / frame.frame_path, frame.frame_index), height, width
            ),
            f"{frame.gas}_mask": resize_mask(read_mask(source / frame.mask_path), height, width),
            **{f"{frame.gas}_{name}": getattr(frame, name) for name in IDS},
        }
    return example
