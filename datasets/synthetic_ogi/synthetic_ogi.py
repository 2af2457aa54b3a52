"""TFDS builder of simulated dual-gas OGI recordings. It needs no TensorFlow and no download."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from datasets.paired_frames import PairedFramesBuilder, create_process_pool
from datasets.synthetic_ogi import bounds
from datasets.synthetic_ogi.plan import Counts, SyntheticOgiConfig, counts_by_share
from datasets.synthetic_ogi.recording import render
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GASES

# Number of single-gas frames of each pH level in the published in-vitro recordings.
PUBLISHED_FRAMES = {6.5: 1008, 6.2: 1050, 5.9: 945, 5.6: 3087, 5.3: 1512, 5.0: 1365}
# Number of recordings behind them: 427 originals, 293 of CO2 and 134 of CH4, of which 129 were filmed together.
PUBLISHED_RECORDINGS: Counts = {
    6.5: {"both": 15, "co2": 18, "ch4": 0},
    6.2: {"both": 15, "co2": 19, "ch4": 1},
    5.9: {"both": 14, "co2": 17, "ch4": 0},
    5.6: {"both": 44, "co2": 57, "ch4": 2},
    5.3: {"both": 22, "co2": 27, "ch4": 1},
    5.0: {"both": 19, "co2": 26, "ch4": 1},
}
# Healthy has 45 %, Transitional 2.6 %, Acidotic 52.5 %; within a class the pH levels have their published shares.
RARE_SHARES = {6.5: 22.0, 6.2: 23.0, 5.9: 2.6, 5.6: 27.2, 5.3: 13.3, 5.0: 12.0}
LEAK = "The splits leak: every recording is in all of them, so a score may be memory."

_PUBLISHED = SyntheticOgiConfig(
    name="published",
    description="Size and shares are as published: 8,967 single-gas frames, 6,258 pairs, split over recordings.",
    recordings=PUBLISHED_RECORDINGS,
    splits={"train": 0.7, "val": 0.15, "test": 0.15},
    frames=7,
    copies=2,
)

_PRETRAINING = SyntheticOgiConfig(
    name="pretraining",
    description="8,000 pairs of 320x240 from 4,000 recordings of cameras and scenes of every kind.",
    recordings=counts_by_share(4000, PUBLISHED_FRAMES, single_gas=0.1),
    splits={"train": 0.9, "val": 0.05, "test": 0.05},
    height=240,
    width=320,
    varied=True,
)


class SyntheticOgi(PairedFramesBuilder):
    """Pairs of simulated OGI frames with plume masks and pH class.

    Examples are stored in the order of recordings: training shuffles anyway, and TFDS's own shuffling needs TensorFlow
    for more than 1 GB a split.
    """

    VERSION = tfds.core.Version("3.0.0")
    RELEASE_NOTES = {
        "3.0.0": "Scenes of every kind (`pretraining`); both gases leave the mouth at one rate; other eddies of the "
        "same distribution; plumes are in place on detectors of any width.",
        "2.0.0": "Jets and low flows, starting plumes, a real camera, masks by a viewer's threshold.",
    }
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
            description="As `published`, but split over copies, as it was published: every recording is in all splits.",
            split_over="copies",
        ),
        SyntheticOgiConfig(
            name="rare_transitional",
            description="2,800 pairs from 1,400 recordings, 2.6 % of them Transitional.",
            recordings=counts_by_share(1400, RARE_SHARES, single_gas=0.1),
            splits={"train": 0.5, "val": 0.2, "test": 0.3},
        ),
        _PRETRAINING,
        dataclasses.replace(
            _PRETRAINING,
            name="pretraining_large",
            description="As `pretraining`, 40,000 pairs from 20,000 recordings: those of the pretrained model.",
            recordings=counts_by_share(20000, PUBLISHED_FRAMES, single_gas=0.1),
            splits={"train": 0.98, "val": 0.01, "test": 0.01},
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
        per_gas = tfds.features.Tensor(shape=(len(GASES),), dtype=np.float32)
        extra = {"emission": per_gas, "visibility": per_gas, "exit_speed": np.float32, "copy_index": np.int32}
        return self._create_info(extra, leak=LEAK if self.builder_config.split_over == "copies" else "")

    def _create_pool(self):
        return create_process_pool()

    def _shard_iterators_per_split(self, dl_manager):
        config, plans = self.builder_config, self.builder_config.plan()
        pairs = sum(len(plan.kept) for own in plans.values() for plan in own)
        return self._shards(render, plans, pairs=pairs, most_pairs=config.frames * (1 + config.copies))

    def _keyed(self, split, examples):
        for example in examples:
            self._seen[split].append(bounds.summary(example))
            key = (example["recording_index"], example["frame_index"], example["copy_index"])
            yield "{:05d}_{:02d}_{:02d}".format(*key), example

    def _download_and_prepare(self, dl_manager, download_config):
        self._seen = {split: [] for split in self.builder_config.splits}
        super()._download_and_prepare(dl_manager, download_config)
        recordings = {ph: sum(n.values()) for ph, n in self.builder_config.recordings.items()}
        self.info.metadata["bounds"] = bounds.measure(self._seen["train"], self._seen["test"], recordings)


def config_named(name: str) -> SyntheticOgiConfig:
    """Returns the config of that name; raises UserError if there is none."""
    configs = SyntheticOgi.builder_configs
    if name not in configs:
        raise UserError(f"There is no dataset named {name!r}; choose one of: {', '.join(configs)}.")
    return configs[name]
