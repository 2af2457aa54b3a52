"""How many recordings of what, and which examples of them belong to which split."""

import numpy as np

from datasets.synthetic_ogi.recording import RecordingPlan
from fume_jax.vocabulary import GASES

# Recordings of each pH level by the gases they hold: "both" or the name of the only one.
Counts = dict[float, dict[str, int]]


def counts_by_share(recordings: int, ph_shares: dict[float, float], single_gas: float) -> Counts:
    """Whole recordings nearest to the shares of pH levels, of which a share lacks one gas: two of three times CH4."""
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
      split_over: `recordings`: no recording is in two splits, every kind of recording is spread over all of them.
        `copies`: the examples of every recording are spread over the splits, which therefore leak into each other.
      height, width: of the frames, pixels.
      seed: decides everything.
    """
    rng = np.random.default_rng([seed])
    kinds = [(ph, gases) for ph, by_gas in counts.items() for gases, n in by_gas.items() for _ in range(n)]
    numbers = rng.permutation(len(kinds))
    of_recording = _spread(len(kinds), list(splits.values()))
    examples = frames * (1 + copies)
    plans = {split: [] for split in splits}
    for number, (ph, gases), own_split in zip(numbers, kinds, of_recording, strict=True):
        of_example = np.full(examples, own_split)
        if split_over == "copies":
            of_example = rng.permutation(_spread(examples, list(splits.values()), first=int(number)))
        for i, split in enumerate(splits):
            kept = tuple(np.flatnonzero(of_example == i).tolist())
            if kept:
                present = GASES if gases == "both" else (gases,)
                plans[split].append(
                    RecordingPlan(int(number), float(ph), present, frames, copies, height, width, seed, kept)
                )
    return {split: sorted(planned, key=lambda plan: plan.number) for split, planned in plans.items()}


def _apportion(total, shares):
    """Whole numbers that add up to `total`, nearest to the shares (largest remainder), int [len(shares)]."""
    exact = np.asarray(shares) * total
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return counts


def _spread(count, shares, first=0):
    """For each of `count` things in a row, which share it falls to, evenly: int [count]. `first` skips that many."""
    dealt, taken = np.zeros(len(shares)), []
    for i in range(1, first % 1000 + count + 1):
        taken.append(int(np.argmax(np.asarray(shares) * i - dealt)))
        dealt[taken[-1]] += 1
    return np.array(taken[-count:])
