"""What a run logs while it goes: TensorBoard events, and if asked for a Weights & Biases mirror of them."""

import math
import os
import shutil
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np

from fume_jax.schema import CLASSES
from fume_jax.training.wandb_writer import WandbWriter

# tensorboardX looks for PyTorch, to take its tensors, which nobody gives it here: one that is installed for something
# else would cost every start two seconds.
_torch = sys.modules.get("torch")
sys.modules["torch"] = None
try:
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import masked_crc32c
finally:
    if _torch is None:
        del sys.modules["torch"]
    else:
        sys.modules["torch"] = _torch

# How long an event may wait for the disk, and so for the dashboard.
FLUSH_SECONDS = 10.0


class EventLog:
    """Logs to `WORKDIR/events`, on the first process only; elsewhere its methods do nothing.

    A run that starts again takes the steps after its checkpoint again. What the events hold of them is cut off first,
    and an entry that is still there, such as the config, or the test scores of a run that was done, is not written a
    second time: whatever kills a run, every entry is there once, provided that `flush` came before each checkpoint.
    """

    def __init__(self, workdir: str | Path, *, start_step: int | None, wandb: str | None = None):
        """Opens the events of a run.

        Args:
          workdir: folder of the run.
          start_step: step of the checkpoint that the run goes on from; None for a run that starts anew, of which an
            earlier start, maybe by another config, may have left something.
          wandb: Weights & Biases project in which to log too, or None.

        Raises:
          UserError: if Weights & Biases cannot be used.
        """
        self._writer = self._wandb = None
        if jax.process_index() != 0:
            return
        events = Path(workdir) / "events"
        if wandb is not None:
            self._wandb = WandbWriter(workdir, wandb, anew=start_step is None)
        if start_step is None:
            shutil.rmtree(events, ignore_errors=True)
            start_step = 0
        events.mkdir(parents=True, exist_ok=True)
        self._kept = _cut(events, start_step)
        # SummaryWriter would return from flush() before its queue is written. The suffix, how many starts came before,
        # keeps two within one second from sharing a file.
        self._writer = EventsWriter(str(events / "events"), f".{len(list(events.iterdir())):04}")
        # A dashboard that is running has read what was cut off; this makes it forget.
        restart = Event(step=start_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._writer.write_event(restart)
        self.flush()

    def scalars(self, step: int, prefix: str, values: dict[str, float]) -> None:
        """Logs values as `{prefix}/{name}`; NaN, a metric without meaning, is left out."""
        values = {f"{prefix}/{name}": float(value) for name, value in values.items() if not math.isnan(value)}
        for tag, value in values.items():
            self._log(step, summary.scalar(tag, value))
        if self._wandb:
            self._wandb.scalars(step, values)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Logs an RGB image, uint8 [H, W, 3]."""
        self._log(step, summary.image(name, image, dataformats="HWC"))
        if self._wandb:
            self._wandb.image(step, name, image)

    def text(self, name: str, markdown: str) -> None:
        """Logs a text at step 0; not to Weights & Biases."""
        self._log(0, summary.text(name, markdown))

    def pr_curves(self, step: int, prefix: str, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Logs a precision-recall curve of each class, it against the others, as `{prefix}/{class}`.

        Not to Weights & Biases.

        Args:
          step: of the parameters that are scored.
          prefix: of the tags.
          labels: int [N], indices into `CLASSES`.
          probabilities: floating [N, 3], in [0, 1].
        """
        for i, name in enumerate(CLASSES):
            self._log(step, summary.pr_curve(f"{prefix}/{name}", labels == i, probabilities[:, i]))

    def hparams(self, values: dict[str, bool | str | float | int], metric_names: list[str]) -> None:
        """Lists the run in the table of the HParams tab.

        TensorBoard takes the columns from any one of the runs it shows, so all runs should give the same keys. What is
        not a bool, number or str, such as None or a tuple, is shown as Python writes it.

        Args:
          values: by name.
          metric_names: tags of scalars; the table shows the last value of each, once logged.
        """
        values = {name: v if isinstance(v, bool | int | float | str) else str(v) for name, v in values.items()}
        for part in summary.hparams(values, dict.fromkeys(metric_names)):  # experiment, start and end of the session
            self._log(0, part)
        if self._wandb:
            self._wandb.hparams(values)

    def flush(self) -> None:
        """Returns once everything logged so far is on disk, where it outlives the process."""
        if self._writer:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        if self._writer:
            self._writer.close()
        if self._wandb:
            self._wandb.close()

    def _log(self, step, entry):
        if not self._writer or {(value.tag, step) for value in entry.value} <= self._kept:
            return
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=entry))
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()


def _cut(folder: Path, start_step: int) -> set[tuple[str, int]]:
    """Cuts every event file of a folder before its first entry after a step, or that was not wholly written.

    Returns:
      Tag and step of all entries that are left.
    """
    kept = set()
    for path in folder.glob("events.out.tfevents.*"):
        with path.open("r+b") as file:
            end = 0
            while (event := _read_event(file)) and (event.step <= start_step or not event.HasField("summary")):
                end = file.tell()
                kept |= {(value.tag, event.step) for value in event.summary.value}
            file.truncate(end)
            os.fsync(file.fileno())
    return kept


def _read_event(file: BinaryIO) -> Event | None:
    """The next event of a file, None if no whole one follows. A record is length, checksum, event, checksum."""
    header = file.read(12)
    if len(header) < 12 or struct.unpack("<I", header[8:])[0] != masked_crc32c(header[:8]):
        return None
    size = struct.unpack("<Q", header[:8])[0]
    data, checksum = file.read(size), file.read(4)
    if len(checksum) < 4 or struct.unpack("<I", checksum)[0] != masked_crc32c(data):
        return None
    return Event.FromString(data)


def read_scalars(workdir: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of everything that `EventLog.scalars` logged of a run, by tag; nothing if it never did."""
    curves = {}
    for path in sorted((Path(workdir) / "events").glob("events.out.tfevents.*")):
        with path.open("rb") as file:
            while event := _read_event(file):
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        steps, values = curves.setdefault(value.tag, ([], []))
                        steps.append(event.step)
                        values.append(value.simple_value)
    return curves
