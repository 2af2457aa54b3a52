"""Watches cameras: predicts the newest frames for as long as they come, and hands on what is found."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.gray import to_levels
from fume_jax.data.scale import Limits
from fume_jax.evaluation import overlays
from fume_jax.inference.live.events import Detector, EventRecorder
from fume_jax.inference.live.films import RotatingFilm, stamp
from fume_jax.inference.live.outbox import Outbox
from fume_jax.inference.live.pairing import Pairing
from fume_jax.inference.live.server import LiveServer
from fume_jax.inference.live.status import Status
from fume_jax.inference.live.streams import LiveFrame, Stream
from fume_jax.inference.output import by_class
from fume_jax.inference.predictor import Predictor
from fume_jax.inference.recording import PredictedPair, to_record
from fume_jax.learning.plume import measure_contrast
from fume_jax.runtime import files
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, UserError
from fume_jax.runtime.preemption import StopRequest

# Width and height of the panel of a gas in annotated pictures.
PANEL = (480, 360)
# Seconds between two looks at whether to stop, and whether a frame has waited long enough.
_LOOK_SECONDS = 0.02
# Seconds between two lines about frames that are unlike those of training.
_UNLIKE_SECONDS = 600.0
# Predictions that may wait to be drawn.
_UNDRAWN = 4
# Quality of the pictures on the page.
_JPEG = [cv2.IMWRITE_JPEG_QUALITY, 85]


@dataclasses.dataclass(frozen=True)
class Options:
    """Says what becomes of predictions, and what an event is; see `fume_jax.commands.watch`.

    `output` is a file, `-` for standard output, or empty. `senders` hand a JSON text on, by the name of the receiver.
    """

    output: str = "-"
    senders: Mapping[str, Callable[[str], object]] = dataclasses.field(default_factory=dict)
    films: Path | None = None
    film_seconds: float = 600.0
    film_keep: int = 12
    events: Path | None = None
    event_gas: float = 0.01
    event_hold_seconds: float = 2.0
    event_seconds: float = 10.0
    address: tuple[str, int] | None = ("127.0.0.1", 0)
    limits: Mapping[str, Limits] = dataclasses.field(default_factory=dict)


def watch(
    predictor: Predictor,
    streams: Sequence[Stream],
    pairing: Pairing,
    options: Options,
    stop: StopRequest,
    tell: Callable[[str], object],
) -> int:
    """Predicts the newest frames of one or two streams until `stop` is requested, or all of them are films that ended.

    `tell` prints a line.

    Returns:
      `DONE`; `PARTLY_DONE` if something could not be written or a receiver got no message at all; `NOTHING_DONE` if
      the films ended and no frame could be predicted.

    Raises:
      UserError: if the model reads none of the gases, or the address to serve at is taken.
    """
    card, gases = predictor.card, [stream.gas for stream in streams]
    if not set(gases) & set(card.gases):
        raise UserError(f"This model reads {' and '.join(card.gases)} alone, and there are only frames of {gases[0]}.")
    by_products = ByProducts(tell)
    with contextlib.ExitStack() as stack:
        for folder in {options.films, options.events} - {None}:
            stack.enter_context(files.lock(folder, doing="watching into", flag="folder"))
            for event in folder.iterdir():
                files.remove_parts(event)
        write = stack.enter_context(json_lines(options.output, by_products))
        boxes = [Outbox(name, send, tell=tell) for name, send in options.senders.items()]
        for box in boxes:
            stack.callback(box.close)
        status = Status(streams, boxes, 2 * max(stream.timeout for stream in streams))
        painter = Painter(gases, card.classifies, options, status, by_products, tell)
        stack.callback(painter.close)
        predictor.warm_up(1)
        if options.address is not None:
            server = stack.enter_context(LiveServer(status, *options.address))
            tell(f"Open {server.url}")
        for stream in streams:
            stack.callback(stream.close)
            stream.start()
        watcher = _Watcher(predictor, streams, pairing, options, tell)
        while not stop.requested:
            chosen = _next_frames(streams, pairing)
            if not chosen:
                if all(stream.ended for stream in streams):
                    break
                continue
            result, record, now = watcher.predict(chosen)
            if result.prediction is None:
                continue
            write(record)
            fractions = {gas: plume.fraction for gas, plume in result.prediction.plumes.items()}
            status.update(record, fractions, now)
            for box in boxes:
                box.put(json.dumps(record))
            painter.add(result, record, {gas: frame.values for gas, frame in chosen.items()})
    by_products.summarize()
    dropped = sum(stream.dropped for stream in streams)
    tell(f"{status.predicted:,} predicted, {dropped:,} frames dropped for newer ones, {status.events:,} events")
    if not status.predicted and not stop.requested:
        return NOTHING_DONE
    unreached = any(box.dropped and not box.sent for box in boxes)
    return PARTLY_DONE if by_products.failures or unreached else DONE


def _next_frames(streams, pairing):
    """Returns the frames to predict now, by gas, and takes them; empty if there are none for some time."""
    arrived = streams[0].arrived
    with arrived:
        for look in range(2):
            now = time.monotonic()
            for stream in streams:
                stream.tell_silence(now)
            lost = {stream.gas for stream in streams if stream.is_lost(now)}
            chosen = pairing.choose({stream.gas: stream.waiting() for stream in streams}, lost, now)
            if chosen or look:
                break
            arrived.wait(_LOOK_SECONDS)
        for stream in streams:
            if stream.gas in chosen:
                stream.take(chosen[stream.gas])
    return chosen


class _Watcher:
    """Predicts pairs of live frames, and makes their records."""

    def __init__(self, predictor, streams, pairing, options, tell):
        self._predictor, self._pairing, self._limits, self._tell = predictor, pairing, options.limits, tell
        self._streams = {stream.gas: stream for stream in streams}
        self._detector = Detector(options.event_gas, options.event_hold_seconds)
        self._count, self._unlike_told = 0, {}

    def predict(self, chosen: Mapping[str, LiveFrame]) -> tuple[PredictedPair, dict, float]:
        """Returns the predicted pair, its record, and when it was done, in seconds of the monotonic clock."""
        frames, faults = {}, {}
        for gas, frame in chosen.items():
            try:
                frames[gas] = to_levels(frame.values, self._limits.get(gas))
            except (UnreadableFrame, ValueError) as error:
                faults[gas] = str(error)
        clock = max(frame.clock for frame in chosen.values())
        result = PredictedPair(f"{stamp(clock)}_{self._count:06d}", clock, frames, faults)
        if not frames:
            return result, {}, time.monotonic()
        logits, milliseconds = self._predictor.run([self._predictor.prepare(frames)])
        prediction = self._predictor.interpret(frames, logits[0], milliseconds)
        contrasts = {gas: measure_contrast(chosen[gas].values, mask) for gas, mask in prediction.masks.items()}
        result = dataclasses.replace(result, prediction=prediction, contrasts=contrasts)
        self._count += 1
        self._tell_unlike(prediction)
        now = time.monotonic()
        return result, self._record(result, chosen, now), now

    def _record(self, result, chosen, now):
        """Returns the record of `to_record`, and what is only known of live frames."""
        record = to_record(result, self._predictor.card)
        for gas, stream in self._streams.items():
            if gas not in chosen:
                record[gas] = "lost" if stream.is_lost(now) else "late"
        fraction = max((plume.fraction for plume in result.prediction.plumes.values()), default=0.0)
        distance = self._pairing.distance(chosen)
        record["lag_seconds"] = round(now - min(frame.arrival for frame in chosen.values()), 4)
        record["apart_seconds"] = None if distance is None else round(distance, 4)
        record["event"] = self._detector.update(result.time, fraction)
        for gas, stream in self._streams.items():
            frame = chosen.get(gas)
            seconds = None if frame is None else frame.seconds
            record[f"{gas}_seconds"] = None if seconds is None else round(seconds, 4)
            record[f"{gas}_size"] = None if frame is None else "{1}x{0}".format(*frame.values.shape)
            record |= {f"{gas}_{name}": getattr(stream, name) for name in ("dropped", "damaged", "reconnects")}
        return record

    def _tell_unlike(self, prediction):
        now = time.monotonic()
        for name in prediction.unlike_training:
            if now - self._unlike_told.get(name, -_UNLIKE_SECONDS) >= _UNLIKE_SECONDS:
                self._unlike_told[name] = now
                self._tell(f"WARNING: frames are unlike those of training: {name} (docs/prediction.md)")


class Painter:
    """Draws predictions in a thread of its own, for films, events and the page; what comes too fast is left out."""

    def __init__(
        self,
        gases: Sequence[str],
        classifies: bool,
        options: Options,
        status: Status,
        by_products: ByProducts,
        tell: Callable[[str], object],
    ):
        """Starts the thread; pictures have a panel for each of `gases`, and bars if the model `classifies`."""
        self._classifies = classifies
        self._gases, self._status, self._by_products = gases, status, by_products
        self._film = self._events = None
        if options.films is not None:
            self._film = RotatingFilm(options.films, options.film_seconds, options.film_keep)
        if options.events is not None:
            self._events = EventRecorder(options.events, options.event_seconds, tell)
        self._box = Outbox("pictures", self._paint, tell=tell, depth=_UNDRAWN)

    def add(self, result: PredictedPair, record: dict, values: Mapping[str, np.ndarray]) -> None:
        """Draws a prediction soon, if anybody wants its picture; `values` are its frames as they were measured."""
        if self._film or self._events or self._status.watched:
            self._box.put((result, record, values))

    def close(self) -> None:
        """Draws what waits, and completes film and event."""
        self._box.close(seconds=10.0)
        for what, product in (("film", self._film), ("event", self._events)):
            if product is not None:
                with self._by_products.attempt(what):
                    product.close()

    def _paint(self, item):
        result, record, values = item
        with self._by_products.attempt("picture"):
            picture = self._draw(result)
            if self._status.watched:
                bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
                self._status.show(cv2.imencode(".jpg", bgr, _JPEG)[1].tobytes())
            if self._film is not None:
                with self._by_products.attempt("film"):
                    self._film.write(picture, result.time)
            if self._events is not None:
                with self._by_products.attempt("event"):
                    kept = {
                        gas: values[gas] if values[gas].dtype in (np.uint8, np.uint16) else frame[..., 0]
                        for gas, frame in result.frames.items()
                    }
                    self._events.add(result.time, record, kept, picture, record["event"])

    def _draw(self, result):
        prediction = result.prediction
        caption = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(result.time))
        if prediction.label:
            caption = f"{prediction.label} {prediction.probabilities[prediction.label]:.2f}   {caption}"
        bars = by_class(prediction.probabilities) if self._classifies else None
        return overlays.annotated_pair(result.frames, prediction.masks, caption, bars, gases=self._gases, size=PANEL)


@contextlib.contextmanager
def json_lines(output: str, by_products: ByProducts) -> Iterator[Callable[[dict], None]]:
    """Yields a function that writes a record as a line of JSON, at once: to standard output (`-`), or behind a file.

    A file that cannot be written is told. Whoever reads standard output may leave, which is a BrokenPipeError.
    """
    if output in ("", "-"):
        yield lambda record: print(json.dumps(record), flush=True) if output else None
        return
    path = Path(output)
    lock = files.lock(path.parent, name=f".{path.name}.lock", doing=f"writing {path.name} in", flag="--output")
    with lock, path.open("ab", buffering=0) as file:

        def write(record):
            with by_products.attempt("a line", f"a line of {output}"):
                file.write(f"{json.dumps(record)}\n".encode())

        yield write
