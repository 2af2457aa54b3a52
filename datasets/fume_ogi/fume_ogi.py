"""TFDS builder of annotated recordings. Needs no TensorFlow; the recordings are what TFDS calls manual downloads."""

import collections
import concurrent.futures
import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from scipy import sparse

from datasets.fume_ogi.annotations import Row
from datasets.fume_ogi.content import read_mask
from datasets.fume_ogi.plan import Options, make_plan, statistics
from datasets.paired_frames import paired_frames
from datasets.shards import check_room, prefetch_with_bar, shards
from fume_jax.data.images import read_frame
from fume_jax.data.transforms import resize_frame, resize_mask
from fume_jax.runtime.preflight import full_disk
from fume_jax.schema import GASES


@dataclasses.dataclass(kw_only=True)
class FumeOgiConfig(tfds.core.BuilderConfig):
    """Size that frames are stored at, and how recordings become pairs in splits."""

    height: int = 480
    width: int = 640
    options: Options = dataclasses.field(default_factory=Options)


class FumeOgi(tfds.core.ShardBasedBuilder):
    """Pairs of annotated OGI frames with plume masks and pH class."""

    VERSION = tfds.core.Version("1.1.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "A folder of frames, masks and CSV files, see datasets/fume_ogi/README.md."
    # For TFDS's own tools; the command makes one of the size of the frames.
    BUILDER_CONFIGS = [
        FumeOgiConfig(name="original", description="No original is in two splits."),
        FumeOgiConfig(
            name="published",
            description="The split of the files as they are, which leaks where copies of an original are spread.",
            options=Options(split="published"),
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        ids = {f"{gas}_{name}": tfds.features.Text() for gas in GASES for name in ("original", "augmentation")}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=paired_frames(config.height, config.width, ids),
            metadata=tfds.core.MetadataDict(),
        )

    def _download_and_prepare(self, dl_manager, download_config):
        with (
            full_disk(self.data_dir_root, "the dataset"),
            concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as self._pool,
        ):
            super()._download_and_prepare(dl_manager, download_config)

    def _shard_iterators_per_split(self, dl_manager):
        source, config = Path(dl_manager.manual_dir), self.builder_config
        plan = make_plan(source, config.options)
        pairs = sum(len(rows) for rows in plan.pairs.values())
        check_room(self.data_dir_root, pairs, config.height, config.width)
        self.info.metadata.update(
            leak=plan.leak,
            statistics=statistics(plan.pairs),
            fingerprint=plan.fingerprint(config.height, config.width),
            options=dataclasses.asdict(config.options),
        )
        read = functools.partial(_example, source, config.height, config.width)
        iterators = {}
        for split, numbered in _numbered(plan.pairs).items():
            examples = prefetch_with_bar(self._pool, read, numbered, desc=f"store {split}", unit="pair")
            bytes_each = 4 * config.height * config.width
            iterators[split] = shards(examples, len(numbered), bytes_each, _keyed)
        return iterators


def _numbered(pairs: dict[str, list[Row]]) -> dict[str, list[tuple[Row, int, int]]]:
    """Each pair with the number of the group of originals that it belongs to, and its place in it.

    Pairs that share an original, directly or through other pairs, are of one group. Groups are numbered by the first of
    their originals, in whatever order the pairs come.
    """
    of_rows = [[_original(frame) for frame in row.frames] for rows in pairs.values() for row in rows]
    place = {original: i for i, original in enumerate(sorted({o for originals in of_rows for o in originals}))}
    ends = [(place[originals[0]], place[originals[-1]]) for originals in of_rows]
    tied = sparse.coo_array((np.ones(len(ends)), np.transpose(ends)), (len(place), len(place)))
    component = sparse.csgraph.connected_components(tied, directed=False)[1]
    number = {label: i for i, label in enumerate(dict.fromkeys(component))}
    seen, numbered = collections.Counter(), {}
    for split, rows in pairs.items():
        numbered[split] = []
        for row in rows:
            group = number[component[place[_original(row.frames[0])]]]
            numbered[split].append((row, group, seen[group]))
            seen[group] += 1
    return numbered


def _original(frame):
    """Without ids every frame is an original of its own."""
    return frame.original or frame.frame_path


def _example(source, height, width, numbered):
    row, recording, index = numbered
    nothing = np.zeros((height, width), np.uint8)
    example = {
        "modality_mask": np.zeros(len(GASES), np.float32),
        "label": row.label,
        "ph": row.ph,
        "recording_index": recording,
        "frame_index": index,
    }
    for gas in GASES:
        example |= {f"{gas}_frame": nothing[..., None], f"{gas}_mask": nothing}
        example |= {f"{gas}_original": "", f"{gas}_augmentation": ""}
    for frame in row.frames:
        example["modality_mask"][GASES.index(frame.gas)] = 1
        example |= {
            f"{frame.gas}_frame": resize_frame(read_frame(source / frame.frame_path), height, width),
            f"{frame.gas}_mask": resize_mask(read_mask(source / frame.mask_path), height, width),
            f"{frame.gas}_original": frame.original,
            f"{frame.gas}_augmentation": frame.augmentation,
        }
    return example


def _keyed(example):
    yield f"{example['recording_index']:06d}_{example['frame_index']:04d}", example
