"""Logs a run as TensorBoard events, and optionally to Weights & Biases."""

import contextlib
import math
import os
import shutil
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import jax
import numpy as np

from fume_jax.schema import CLASSES
from fume_jax.training.wandb_writer import WandbWriter


@contextlib.contextmanager
def _torch_hidden() -> Iterator[None]:
    """Makes `import torch` fail while open, unless PyTorch is imported already.

    tensorboardX has no switch for it: on import it imports an installed PyTorch, only to accept its tensors. That would
    cost every start two seconds.
    """
    hidden = sys.modules.setdefault("torch", None) is None
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]


with _torch_hidden():
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import masked_crc32c

# The longest time until an event is on disk, and so on the dashboard.
FLUSH_SECONDS = 10.0


class EventLog:
    """Logs to `WORKDIR/events`, on the first process only; on others its methods do nothing.

    A run that resumes repeats the steps after its checkpoint. Their events are cut off first, and an entry that is
    still there, such as the config or the test scores of a finished run, is not written again. Every entry is there
    once, however a run ends, provided that `flush` came before each checkpoint.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        start_step: int | None,
        wandb: str | None = None,
        warn: Callable[[str], None] = warnings.warn,
    ):
        """Opens the events of a run; UserError if Weights & Biases cannot be used.

        Args:
          workdir: folder of the run.
          start_step: step of the checkpoint that the run resumes; None for a new run, which deletes earlier events.
          wandb: Weights & Biases project to log to as well, or None.
          warn: function that receives a sentence about each damaged file of events, of which a copy is kept.
        """
        self._writer = self._wandb = None
        if jax.process_index() != 0:
            return
        events = Path(workdir) / "events"
        if wandb is not None:
            self._wandb = WandbWriter(workdir, wandb, new_run=start_step is None)
        if start_step is None:
            shutil.rmtree(events, ignore_errors=True)
            start_step = 0
        events.mkdir(parents=True, exist_ok=True)
        self._kept = _cut(events, start_step, warn)
        # SummaryWriter would return from flush() before its queue is written. The suffix, the number of earlier starts,
        # keeps two starts within one second from sharing a file.
        self._writer = EventsWriter(str(events / "events"), f".{len(list(events.iterdir())):04}")
        # A running dashboard has read the events that were cut off; this one makes it drop them.
        self._writer.write_event(Event(step=start_step + 1, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def scalars(self, step: int, prefix: str, values: dict[str, float]) -> None:
        """Logs values as `{prefix}/{name}`, without NaN."""
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
        """Logs a text at step 0, not to W&B."""
        self._log(0, summary.text(name, markdown))

    def pr_curves(self, step: int, prefix: str, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """Logs a precision-recall curve of each class against the others as `{prefix}/{class}`, not to W&B.

        `labels` are int [N], indices into `CLASSES`; `probabilities` are floats [N, 3] in [0, 1].
        """
        for i, name in enumerate(CLASSES):
            self._log(step, summary.pr_curve(f"{prefix}/{name}", labels == i, probabilities[:, i]))

    def hparams(self, values: dict[str, bool | str | float | int], metric_names: list[str]) -> None:
        """Lists the run in the table of the HParams tab, with the last values of the scalars in `metric_names`.

        TensorBoard takes the columns from any one of the runs it shows, so all runs should have the same keys. A value
        that is not a bool, number or str, such as None or a tuple, is shown as its `str`.
        """
        values = {name: v if isinstance(v, bool | int | float | str) else str(v) for name, v in values.items()}
        for part in summary.hparams(values, dict.fromkeys(metric_names)):  # experiment, start and end of the session
            self._log(0, part)
        if self._wandb:
            self._wandb.hparams(values)

    def flush(self) -> None:
        """Writes all events so far to disk."""
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


def _cut(folder: Path, start_step: int, warn: Callable[[str], None]) -> set[tuple[str, int]]:
    """Cuts event files before entries that are after `start_step` or incomplete; returns tags and steps of the rest.

    A file that is damaged elsewhere than at its end is cut too, and a copy of all of it stays.
    """
    kept = set()
    for path in _event_files(folder):
        with path.open("r+b") as file:
            end = 0
            for event in _events(file):
                if event.step > start_step and event.HasField("summary"):
                    break
                end = file.tell()
                kept |= {(value.tag, event.step) for value in event.summary.value}
            else:
                if _damaged(file, end):
                    copy = path.with_name(path.name.replace("tfevents", "damaged"))  # which TensorBoard does not read
                    shutil.copyfile(path, copy)
                    warn(f"{path} is damaged after {end:,} bytes; the log loses what follows, which {copy} keeps")
            file.truncate(end)
            os.fsync(file.fileno())
    return kept


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))


def _events(file: BinaryIO) -> Iterator[Event]:
    """Yields the events of a file up to the first bad one. A record is length, checksum, event, checksum."""

    def read(size):
        data, checksum = file.read(size), file.read(4)
        return data if checksum == struct.pack("<I", masked_crc32c(data)) else None

    while (header := read(8)) is not None and (data := read(struct.unpack("<Q", header)[0])) is not None:
        yield Event.FromString(data)


def _damaged(file: BinaryIO, end: int) -> bool:
    """Returns whether the last good record, which ends at `end`, is followed by more than one that was being written.

    The end of the file cuts off such a one, or a crash of the system left zeros in its place.
    """
    file.seek(end)
    rest = file.read().rstrip(b"\0")
    if len(rest) < 12:
        return False
    length, checksum = struct.unpack("<QI", rest[:12])
    return checksum != masked_crc32c(rest[:8]) or len(rest) >= 12 + length + 4


def read_scalars(
    workdir: str | Path, warn: Callable[[str], None] = warnings.warn
) -> dict[str, tuple[list[int], list[float]]]:
    """Reads steps and values of the scalars of a run, by tag; nothing if it logged none. `warn` is as in `EventLog`."""
    curves = {}
    for path in _event_files(Path(workdir) / "events"):
        with path.open("rb") as file:
            end = 0
            for event in _events(file):
                end = file.tell()
                for value in event.summary.value:
                    if value.HasField("simple_value"):
                        steps, values = curves.setdefault(value.tag, ([], []))
                        steps.append(event.step)
                        values.append(value.simple_value)
            if _damaged(file, end):
                warn(f"{path} is damaged after {end:,} bytes; what follows is not drawn")
    return curves
