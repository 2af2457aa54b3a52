"""Plan of a rendered dataset: number and kinds of its recordings, and the split of their examples."""

import dataclasses

import numpy as np
import tensorflow_datasets as tfds

from datasets.apportion import divide
from datasets.synthetic_ogi.recording import RecordingPlan
from fume_jax.schema import GASES

# Number of recordings of each pH level by the gases they hold: "both", "co2" or "ch4".
Counts = dict[float, dict[str, int]]


@dataclasses.dataclass(kw_only=True)
class SyntheticOgiConfig(tfds.core.BuilderConfig):
    """Size and composition of a rendered dataset."""

    recordings: Counts = dataclasses.field(default_factory=dict)
    splits: dict[str, float] = dataclasses.field(default_factory=lambda: {"train": 0.65, "val": 0.15, "test": 0.2})
    frames: int = 2  # consecutive frames of a recording
    copies: int = 0  # augmented copies of each frame
    # "recordings" keeps a recording in one split, and its kinds are spread over the splits as evenly as they can be;
    # "copies" spreads the examples of every recording over the splits, which therefore leak into each other.
    split_over: str = "recordings"
    height: int = 480
    width: int = 640
    seed: int = 0
    varied: bool = False  # whether scenes are those of `variety`

    def plan(self) -> dict[str, list[RecordingPlan]]:
        """Plans the recordings of every split, in the order of their numbers."""
        rng = np.random.default_rng([self.seed])
        kinds = [(ph, gases) for ph, by_gas in self.recordings.items() for gases, n in by_gas.items() for _ in range(n)]
        numbers = rng.permutation(len(kinds))
        examples = self.frames * (1 + self.copies)
        shares = list(self.splits.values())
        if self.split_over == "recordings":
            split_of = np.repeat(divide(len(kinds), shares), examples)
        else:
            split_of = divide(len(kinds) * examples, shares)
        split_of = rng.permuted(split_of.reshape(len(kinds), examples), axis=1)
        size = (self.frames, self.copies, self.height, self.width, self.seed)
        plans = {split: [] for split in self.splits}
        for number, (ph, gases), own in sorted(zip(numbers.tolist(), kinds, split_of.tolist(), strict=True)):
            present = GASES if gases == "both" else (gases,)
            for i, split in enumerate(self.splits):
                if kept := tuple(example for example, part in enumerate(own) if part == i):
                    plans[split].append(RecordingPlan(number, float(ph), present, *size, kept, self.varied))
        return plans


def counts_by_share(recordings: int, ph_shares: dict[float, float], single_gas: float) -> Counts:
    """Divides recordings by shares of pH levels; the share `single_gas` lacks one gas, CH4 in two cases of three."""
    gas_shares = {"both": 1 - single_gas, "co2": single_gas * 2 / 3, "ch4": single_gas / 3}
    total = sum(ph_shares.values())
    by_ph = _round(recordings, [share / total for share in ph_shares.values()])
    by_gas = {gases: _round(round(share * recordings), by_ph / recordings) for gases, share in gas_shares.items()}
    by_gas["both"] = by_ph - by_gas["co2"] - by_gas["ch4"]
    return {ph: {gases: int(n[i]) for gases, n in by_gas.items()} for i, ph in enumerate(ph_shares)}


def _round(total, shares):
    """Returns whole numbers that add up to `total`, nearest to the shares (largest remainder), int [len(shares)]."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts
