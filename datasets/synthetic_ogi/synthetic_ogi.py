"""TFDS builder of simulated dual-gas OGI recordings. Needs no TensorFlow and no download."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os

import cv2
import numpy as np
import tensorflow_datasets as tfds

from datasets.paired_frames import paired_frames
from datasets.shards import check_room, prefetch_with_bar, shards
from datasets.synthetic_ogi import bounds
from datasets.synthetic_ogi.plan import Counts, counts_by_share, plan_recordings
from datasets.synthetic_ogi.recording import render
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.preflight import full_disk
from fume_jax.schema import GASES

# Single-gas frames of each pH level in the published in-vitro recordings.
PUBLISHED_FRAMES = {6.5: 1008, 6.2: 1050, 5.9: 945, 5.6: 3087, 5.3: 1512, 5.0: 1365}
# The same as recordings: 427 originals, 293 of CO2 and 134 of CH4, of which 129 were filmed together.
PUBLISHED_RECORDINGS: Counts = {
    6.5: {"both": 15, "co2": 18, "ch4": 0},
    6.2: {"both": 15, "co2": 19, "ch4": 1},
    5.9: {"both": 14, "co2": 17, "ch4": 0},
    5.6: {"both": 44, "co2": 57, "ch4": 2},
    5.3: {"both": 22, "co2": 27, "ch4": 1},
    5.0: {"both": 19, "co2": 26, "ch4": 1},
}
# Healthy 45 %, Transitional 2.6 %, Acidotic 52.5 %, each over its pH levels as they are published.
RARE_SHARES = {6.5: 22.0, 6.2: 23.0, 5.9: 2.6, 5.6: 27.2, 5.3: 13.3, 5.0: 12.0}
LEAK = "The splits leak: every recording is in all of them, so a score may be memory."


@dataclasses.dataclass(kw_only=True)
class SyntheticOgiConfig(tfds.core.BuilderConfig):
    """Size and composition of a rendered dataset; see `plan_recordings`."""

    recordings: Counts = dataclasses.field(default_factory=dict)
    splits: dict[str, float] = dataclasses.field(default_factory=lambda: {"train": 0.65, "val": 0.15, "test": 0.2})
    frames: int = 2
    copies: int = 0
    split_over: str = "recordings"
    height: int = 480
    width: int = 640
    seed: int = 0

    def plan(self) -> dict:
        """Plans of the recordings of every split."""
        options = {key: getattr(self, key) for key in ("frames", "copies", "split_over", "height", "width", "seed")}
        return plan_recordings(self.recordings, self.splits, **options)


_PUBLISHED = SyntheticOgiConfig(
    name="published",
    description="Size and shares as published: 8,967 single-gas frames, 6,258 pairs. Split over recordings.",
    recordings=PUBLISHED_RECORDINGS,
    splits={"train": 0.7, "val": 0.15, "test": 0.15},
    frames=7,
    copies=2,
)


class SyntheticOgi(tfds.core.ShardBasedBuilder):
    """Pairs of simulated OGI frames with plume masks and pH class.

    Examples are stored in the order of recordings: training shuffles anyway, and TFDS's own shuffling needs TensorFlow
    for more than 1 GB a split.
    """

    VERSION = tfds.core.Version("2.0.0")
    BUILDER_CONFIGS = [
        SyntheticOgiConfig(
            name="demo",
            description="2,400 pairs from 1,200 recordings.",
            recordings=counts_by_share(1200, PUBLISHED_FRAMES, single_gas=0.1),
        ),
        _PUBLISHED,
        dataclasses.replace(
            _PUBLISHED,
            name="published_leaking",
            description="As `published`, but split over copies: every recording is in all splits, as was published.",
            split_over="copies",
        ),
        SyntheticOgiConfig(
            name="rare_transitional",
            description="2,800 pairs from 1,400 recordings, 2.6 % of them Transitional.",
            recordings=counts_by_share(1400, RARE_SHARES, single_gas=0.1),
            splits={"train": 0.5, "val": 0.2, "test": 0.3},
        ),
        SyntheticOgiConfig(
            name="tiny",
            description="For tests: 48 pairs of 128x96 frames from 24 recordings.",
            recordings={ph: {"both": 3, "co2": int(ph > 5.5), "ch4": int(ph < 5.5)} for ph in PUBLISHED_FRAMES},
            splits={"train": 0.5, "val": 0.25, "test": 0.25},
            height=96,
            width=128,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        per_gas = tfds.features.Tensor(shape=(len(GASES),), dtype=np.float32)
        extra = {"emission": per_gas, "visibility": per_gas, "exit_speed": np.float32, "copy_index": np.int32}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=paired_frames(config.height, config.width, extra),
            metadata=tfds.core.MetadataDict(leak=LEAK if config.split_over == "copies" else ""),
        )

    def _shard_iterators_per_split(self, dl_manager):
        del dl_manager
        config = self.builder_config
        bytes_each = config.frames * (1 + config.copies) * 4 * config.height * config.width
        planned = config.plan()
        pairs = sum(len(plan.kept) for plans in planned.values() for plan in plans)
        check_room(self.data_dir_root, pairs, config.height, config.width)
        iterators = {}
        for split, plans in planned.items():
            rendered = prefetch_with_bar(self._pool, render, plans, desc=f"render {split}", unit="recording")
            iterators[split] = shards(rendered, len(plans), bytes_each, functools.partial(self._keyed, split))
        return iterators

    def _keyed(self, split, examples):
        for example in examples:
            self._seen[split].append(_summary(example))
            key = (example["recording_index"], example["frame_index"], example["copy_index"])
            yield "{:05d}_{:02d}_{:02d}".format(*key), example

    def _download_and_prepare(self, dl_manager, download_config):
        self._seen = {split: [] for split in self.builder_config.splits}
        # A fresh interpreter a worker: forking a process that runs threads can hang it.
        context = multiprocessing.get_context("spawn")
        with (
            full_disk(self.data_dir_root, "the dataset"),
            concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context, cv2.setNumThreads, (1,)) as self._pool,
        ):
            super()._download_and_prepare(dl_manager, download_config)
        recordings = {ph: sum(n.values()) for ph, n in self.builder_config.recordings.items()}
        self.info.metadata["bounds"] = bounds.measure(self._seen["train"], self._seen["test"], recordings)


def config_named(name: str) -> SyntheticOgiConfig:
    """The config of that name.

    Raises:
      UserError: if there is none.
    """
    if name not in SyntheticOgi.builder_configs:
        raise UserError(
            f"There is no dataset named {name!r}; choose one of: {', '.join(SyntheticOgi.builder_configs)}."
        )
    return SyntheticOgi.builder_configs[name]


def _summary(example):
    """What the bounds need of an example, without its pixels."""
    histograms = [bounds.frame_histogram(example[f"{gas}_frame"]) for gas in GASES]
    return {key: example[key] for key in ("label", "modality_mask", "emission")} | {"histograms": histograms}
