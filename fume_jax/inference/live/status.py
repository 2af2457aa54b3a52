"""What is known of a watch at this moment: as metrics for Prometheus, as JSON for the page, and as health."""

import threading
import time
from collections.abc import Mapping, Sequence

from fume_jax.inference.live.outbox import Outbox
from fume_jax.inference.live.streams import Stream
from fume_jax.schema import CLASSES

# Seconds after a request for a picture for which pictures are drawn for the page.
_WATCHED_SECONDS = 5.0


class Status:
    """Collects numbers from the threads of a watch, and the newest picture."""

    def __init__(self, streams: Sequence[Stream], outboxes: Sequence[Outbox], patience_seconds: float):
        """Reads streams and outboxes when it is asked; a watch is healthy if it predicted within the patience."""
        self._streams, self._outboxes, self._patience = streams, outboxes, patience_seconds
        self._begin, self._lock = time.monotonic(), threading.Lock()
        self._record, self._fractions, self._last, self._asked = {}, {}, None, -_WATCHED_SECONDS
        self.predicted = self.events = 0
        self._jpeg = None

    def update(self, record: Mapping, fractions: Mapping[str, float], now: float) -> None:
        """Takes a prediction of a moment `now` of the monotonic clock: its record, and the share of gas by gas."""
        with self._lock:
            self.predicted += 1
            self.events += bool(record["event"]) and not self._record.get("event", False)
            self._record, self._fractions, self._last = dict(record), dict(fractions), now

    @property
    def watched(self) -> bool:
        """Whether somebody looks at the pictures."""
        return time.monotonic() - self._asked < _WATCHED_SECONDS

    def show(self, jpeg: bytes) -> None:
        """Takes the newest annotated picture."""
        self._jpeg = jpeg

    def picture(self) -> bytes | None:
        """Returns the newest picture as JPEG, None before the first; has further ones drawn."""
        self._asked = time.monotonic()
        return self._jpeg

    def problem(self) -> str | None:
        """Returns why the watch is not healthy, None if it is."""
        now = time.monotonic()
        silent = now - (self._last or self._begin)
        return f"nothing was predicted for {silent:.0f} s" if silent > self._patience else None

    def to_json(self) -> dict:
        """Returns the newest record, and the streams by gas."""
        now = time.monotonic()
        streams = {
            stream.gas: {
                "camera": stream.camera.name,
                "connected": not stream.is_lost(now),
                "frames": stream.frames,
                "dropped": stream.dropped,
                "damaged": stream.damaged,
                "reconnects": stream.reconnects,
            }
            for stream in self._streams
        }
        with self._lock:
            counts = {"predicted": self.predicted, "events": self.events, "problem": self.problem()}
            return counts | {"streams": streams, "record": self._record}

    def metrics(self) -> str:
        """Returns all numbers in the text format of Prometheus, version 0.0.4."""
        now, alone = time.monotonic(), ("", "")
        with self._lock:
            record, fractions, predicted, events = self._record, self._fractions, self.predicted, self.events
        classes = {("class", name): record[name] for name in CLASSES if name in record}
        label = ("class", record.get("class"))

        def of_streams(name):
            return {("gas", stream.gas): getattr(stream, name) for stream in self._streams}

        families = (
            ("frames_read_total", "Frames that a camera gave.", of_streams("frames")),
            ("frames_dropped_total", "Frames that newer ones replaced.", of_streams("dropped")),
            ("frames_damaged_total", "Frames that could not be read.", of_streams("damaged")),
            ("reconnects_total", "Times that a camera came back.", of_streams("reconnects")),
            ("connected", "1 if a camera gives frames.", {("gas", x.gas): not x.is_lost(now) for x in self._streams}),
            ("predicted_total", "Predictions.", {alone: predicted}),
            ("events_total", "Events.", {alone: events}),
            ("lag_seconds", "Time from a frame to its prediction.", {alone: record.get("lag_seconds")}),
            ("model_milliseconds", "Time of the model.", {alone: record.get("milliseconds")}),
            ("gas_fraction", "Share of the frame that is gas.", {("gas", gas): x for gas, x in fractions.items()}),
            ("class_probability", "Probability of a class.", classes),
            ("class", "1 for the class that is predicted.", {key: key == label for key in classes}),
            ("messages_sent_total", "What was handed on.", {("to", box.name): box.sent for box in self._outboxes}),
            ("messages_dropped_total", "What was not.", {("to", box.name): box.dropped for box in self._outboxes}),
        )
        return "".join(_family(*family) for family in families)


def _family(name, description, samples):
    """Returns the lines of a metric; `samples` are its values by a label and its value, None where there is none."""
    kind = "counter" if name.endswith("_total") else "gauge"
    lines = [f"# HELP fume_{name} {description}", f"# TYPE fume_{name} {kind}"]
    for (label, of), value in samples.items():
        if value is not None:
            escaped = of.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
            lines.append(f'fume_{name}{{{label}="{escaped}"}} {value:.12g}' if label else f"fume_{name} {value:.12g}")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
