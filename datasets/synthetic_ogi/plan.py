"""How many recordings of what, and which examples of them belong to which split."""

import numpy as np

from datasets.synthetic_ogi.recording import RecordingPlan
from fume_jax.schema import GASES

# Recordings of each pH level by the gases they hold: "both" or the name of the only one.
Counts = dict[float, dict[str, int]]


def counts_by_share(recordings: int, ph_shares: dict[float, float], single_gas: float) -> Counts:
    """Whole recordings nearest to the shares of pH levels; a share of them lacks one gas, CH4 in two cases of three."""
    gas_shares = {"both": 1 - single_gas, "co2": single_gas * 2 / 3, "ch4": single_gas / 3}
    total = sum(ph_shares.values())
    by_ph = _apportion(recordings, [share / total for share in ph_shares.values()])
    by_gas = {gases: _apportion(round(share * recordings), by_ph / recordings) for gases, share in gas_shares.items()}
    by_gas["both"] = by_ph - by_gas["co2"] - by_gas["ch4"]
    return {ph: {gases: int(n[i]) for gases, n in by_gas.items()} for i, ph in enumerate(ph_shares)}


def plan_recordings(
    counts: Counts,
    splits: dict[str, float],
    *,
    frames: int,
    copies: int,
    split_over: str,
    height: int,
    width: int,
    seed: int,
) -> dict[str, list[RecordingPlan]]:
    """Plans of the recordings of every split, in the order of their numbers.

    Args:
      counts: recordings of each kind.
      splits: share of each split.
      frames: consecutive ones a recording.
      copies: augmented ones of each frame, besides itself.
      split_over: `recordings`: no recording is in two splits; kinds are spread over them as evenly as they can be.
        `copies`: the examples of every recording are spread over the splits, which therefore leak into each other.
      height, width: of the frames, pixels.
      seed: decides everything.
    """
    rng = np.random.default_rng([seed])
    kinds = [(ph, gases) for ph, by_gas in counts.items() for gases, n in by_gas.items() for _ in range(n)]
    numbers = rng.permutation(len(kinds))
    examples = frames * (1 + copies)
    if split_over == "recordings":
        split_of = np.repeat(_spread(len(kinds), splits), examples)
    else:
        split_of = _spread(len(kinds) * examples, splits)
    split_of = rng.permuted(split_of.reshape(len(kinds), examples), axis=1)
    plans = {split: [] for split in splits}
    for number, (ph, gases), own in zip(numbers, kinds, split_of, strict=True):
        present = GASES if gases == "both" else (gases,)
        for i, split in enumerate(splits):
            kept = tuple(np.flatnonzero(own == i).tolist())
            if kept:
                plan = RecordingPlan(int(number), float(ph), present, frames, copies, height, width, seed, kept)
                plans[split].append(plan)
    return {split: sorted(planned, key=lambda plan: plan.number) for split, planned in plans.items()}


def _apportion(total, shares):
    """Whole numbers that add up to `total`, nearest to the shares (largest remainder), int [len(shares)]."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def _spread(count, splits):
    """Index of the split that each of `count` things in a row falls to, every stretch of them by the shares."""
    shares = np.array(list(splits.values()))
    dealt, indices = np.zeros(len(shares)), []
    for i in range(1, count + 1):
        indices.append(int(np.argmax(shares * i - dealt)))
        dealt[indices[-1]] += 1
    return np.array(indices)
