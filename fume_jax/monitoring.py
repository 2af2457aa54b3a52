"""What a run tells while it goes: TensorBoard events, a progress bar, tables of metrics."""

import math
from pathlib import Path

import jax
import numpy as np
import tensorboardX
from tqdm import tqdm

from fume_jax.metrics import HEADLINES


class Monitor:
    """Writes TensorBoard events to `events/` and draws a progress bar, on the first process only."""

    def __init__(self, workdir: str | Path, *, start_step: int, total_steps: int, batch_size: int, progress: bool):
        self._active = jax.process_index() == 0
        self._batch_size = batch_size
        # Steps after the restored one are taken again; what an earlier start wrote of them must not show twice.
        self._writer = None
        if self._active:
            self._writer = tensorboardX.SummaryWriter(str(Path(workdir) / "events"), purge_step=start_step + 1)
        self._bar = tqdm(
            total=total_steps * batch_size,
            initial=start_step * batch_size,
            unit="pair",
            desc="train",
            disable=None if progress and self._active else True,  # None: off unless a terminal shows it
            mininterval=0.5,
        )

    def step_done(self) -> None:
        """Moves the bar on by one batch."""
        self._bar.update(self._batch_size)

    def scalars(self, step: int, prefix: str, values: dict[str, float]) -> None:
        """Writes values as `{prefix}/{name}`; NaN, a metric without meaning, is left out."""
        if self._active:
            for name, value in values.items():
                if not math.isnan(value):
                    self._writer.add_scalar(f"{prefix}/{name}", value, step)
        if prefix == "train":
            self._bar.set_postfix(loss=f"{values['loss']:.3f}")

    def picture(self, step: int, name: str, picture: np.ndarray) -> None:
        """Writes an RGB picture."""
        if self._active:
            self._writer.add_image(name, picture, step, dataformats="HWC")

    def say(self, text: str) -> None:
        """Prints a line above the bar."""
        if self._active:
            tqdm.write(text)

    def close(self) -> None:
        self._bar.close()
        if self._active:
            self._writer.close()


def metrics_table(metrics: dict[str, dict[str, float]]) -> str:
    """A table of the headline metrics with a column for each split, from metrics by split."""
    names = [name for name in HEADLINES if any(name in m for m in metrics.values())]
    lines = [f"{'':<20}" + "".join(f"{split:>10}" for split in metrics)]
    for name in names:
        lines.append(f"{name:<20}" + "".join(f"{m.get(name, math.nan):>10.3f}" for m in metrics.values()))
    return "\n".join(lines)
