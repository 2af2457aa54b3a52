"""Prediction on recordings: reading, the model and writing go on at the same time."""

import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import functools
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fume_jax.data.sources import Pair, Source, load
from fume_jax.data.video import VideoWriter
from fume_jax.evaluation import overlays, plots
from fume_jax.inference.card import ModelCard
from fume_jax.inference.predictor import Prediction, Predictor
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN, UserError
from fume_jax.runtime.preemption import StopRequest
from fume_jax.runtime.prefetch import prefetch_map
from fume_jax.runtime.preflight import full_disk
from fume_jax.schema import CLASSES, GASES

# What is written besides tables and the picture over time; the video only of videos.
PRODUCTS = ("masks", "overlays", "video")
# Of a panel of the annotated video, pixels.
PANEL = (640, 480)


@dataclasses.dataclass(frozen=True)
class PredictedPair:
    """One pair of a recording: what could be read of it, by gas, why the rest could not, and the prediction if any."""

    name: str
    time: float | None
    frames: dict[str, np.ndarray]
    faults: dict[str, str]
    prediction: Prediction | None


def predict_recording(
    predictor: Predictor,
    source: Source,
    output: str,
    *,
    batch_size: int,
    products: Sequence[str] = PRODUCTS,
    stop: StopRequest | None = None,
) -> int:
    """Predicts a recording and writes tables, pictures and a video to a folder; see `fume_jax.predict`.

    Args:
      predictor: of the model.
      source: of the frames.
      output: folder, made if need be.
      batch_size: pairs that the model takes at once.
      products: some of `PRODUCTS`.
      stop: if requested, ends this after the pair at hand; what there is by then is written in order.

    Returns:
      `DONE`; `PARTLY_DONE` if a frame could not be read, which is listed; `NOTHING_DONE` if none could; `RUN_AGAIN` if
      it was stopped.

    Raises:
      UserError: if the model reads none of the gases, or the disk is full. What was predicted stays in
        `predictions.csv.part`.
    """
    card = predictor.card
    if not set(source.gases) & set(card.gases):
        raise UserError(
            f"This model reads {' and '.join(card.gases)} alone, and there are only frames of {source.gases[0]}."
        )
    predictor.warm_up(batch_size)
    folder, timeline, kinds, skipped = Path(output), _Timeline(card, source.gases), collections.Counter(), 0
    if folder.is_dir() and any(folder.iterdir()):
        print(f"{output} holds files already; those of other names stay")
    start = time.perf_counter()
    with full_disk(output, "what was predicted"), contextlib.ExitStack() as stack:
        record = stack.enter_context(_tables(folder, card))
        film = stack.enter_context(VideoWriter(folder / "annotated.mp4", source.rate or 1))  # no file without a picture
        write_fn = functools.partial(_write_pictures, folder=folder, card=card, source=source, products=products)
        results = stack.enter_context(contextlib.closing(predict_pairs(predictor, source.pairs, batch_size, write_fn)))
        for result, picture in tqdm(results, total=source.total, unit="pair", desc="predict", disable=None):
            for fault in result.faults.values():
                tqdm.write(f"skipped: {fault}")
                skipped += 1
            if result.prediction is not None:
                kinds[" and ".join(gas.upper() for gas in GASES if gas in result.frames)] += 1
                record(result)
                timeline.add(result)
                if picture is not None:
                    film.write(picture, result.time)
            if stop is not None and stop.requested:
                break
    done = kinds.total()
    if not done:
        print("Nothing could be predicted: no frame could be read.")
        return NOTHING_DONE
    if done > 1:
        overlays.save(folder / "timeline.png", timeline.chart())
    of = ", ".join(f"{count} of {gases}" for gases, count in kinds.items())
    print(f"{done} predicted into {output} ({of}), {done / (time.perf_counter() - start):.1f} a second")
    if len(source.gases) == 2 and not any(" and " in kind for kind in kinds):
        print("WARNING: No frame of one gas goes with one of the other; see how frames pair in the README.")
    if stop is not None and stop.requested:
        print("stopped early; the same command starts again")
        return RUN_AGAIN
    return PARTLY_DONE if skipped else DONE


def predict_pairs(
    predictor: Predictor, pairs: Iterable[Pair], batch_size: int, write_fn: Callable[[PredictedPair], object]
) -> Iterator[tuple[PredictedPair, object]]:
    """Predicts pairs in order; those to come are read and those before written while the model is at work.

    Args:
      predictor: of the model.
      pairs: of frames or files, taken in a thread of their own.
      batch_size: of the model, the last batch filled up: a backend may have to compile for every size.
      write_fn: what to do with each predicted pair, in any of several threads.

    Yields:
      The pair, and what `write_fn` returned, None if nothing could be predicted of it.
    """

    def read(pair):
        frames, faults = load(pair)
        inputs = predictor.prepare(frames) if frames else None
        return PredictedPair(pair.name, pair.time, frames, faults, None), inputs

    def run(batch):
        inputs = [x for _, x in batch if x is not None]
        if not inputs:
            return [(pair, None, None) for pair, _ in batch]
        logits, milliseconds = predictor.run(inputs + [inputs[-1]] * (batch_size - len(inputs)))
        logits, milliseconds = iter(logits), milliseconds * batch_size / len(inputs)
        return [(pair, None if x is None else next(logits), milliseconds) for pair, x in batch]

    def finish(item):
        pair, logits, milliseconds = item
        if logits is None:
            return pair, None
        pair = dataclasses.replace(pair, prediction=predictor.interpret(pair.frames, logits, milliseconds))
        return pair, write_fn(pair)

    depth = 2 * batch_size
    with contextlib.ExitStack() as stack:

        def ahead(threads, function, items, depth):
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(threads))
            return stack.enter_context(contextlib.closing(prefetch_map(pool, function, items, depth=depth)))

        cores = os.cpu_count() or 1
        items = iter(pairs)
        taken = ahead(1, lambda _: next(items, None), itertools.count(), depth)
        readable = ahead(cores, read, itertools.takewhile(lambda pair: pair is not None, taken), depth)
        predicted = ahead(1, run, _batched(readable, batch_size), 1)
        yield from ahead(cores, finish, itertools.chain.from_iterable(predicted), depth)


def to_record(result: PredictedPair, card: ModelCard) -> dict[str, str | float | None]:
    """What is said of one pair, flat: a row of `predictions.csv`, a line of `predictions.jsonl`."""
    prediction = result.prediction
    status = {
        gas: "read" if gas in result.frames else "unreadable" if gas in result.faults else "absent" for gas in GASES
    }
    record = {"frame": result.name, "time": _rounded(result.time, 4), **status}
    if card.classifies:
        record["class"] = prediction.label
        record |= {name: _rounded(prediction.probabilities.get(name), 4) for name in CLASSES}
    for gas in card.segmented:
        plume = prediction.plumes.get(gas)
        x, y = (plume and plume.centroid) or (None, None)
        record |= {
            f"{gas}_gas_pixels": plume and plume.area_pixels,
            f"{gas}_gas_fraction": plume and _rounded(plume.fraction, 5),
            f"{gas}_centroid_x": _rounded(x, 1),
            f"{gas}_centroid_y": _rounded(y, 1),
            f"{gas}_direction_degrees": plume and _rounded(plume.direction_degrees, 1),
            f"{gas}_length_pixels": plume and _rounded(plume.length_pixels, 1),
        }
    return record | {"milliseconds": _rounded(prediction.milliseconds, 2)}


@contextlib.contextmanager
def _tables(folder, card):
    """Takes predicted pairs; earlier tables stay until these are complete, and where nothing was predicted."""
    folder.mkdir(parents=True, exist_ok=True)
    tables = [folder / "predictions.csv", folder / "predictions.jsonl"]
    parts = [table.with_name(f"{table.name}.part") for table in tables]
    count = 0
    with (
        open(parts[0], "w", newline="", encoding="utf-8") as csv_file,
        open(parts[1], "w", encoding="utf-8") as json_file,
    ):
        writer = csv.writer(csv_file)

        def record(result):
            nonlocal count
            values = to_record(result, card)
            if not count:
                writer.writerow(values)
            writer.writerow(values.values())
            json_file.write(json.dumps(values) + "\n")
            count += 1

        yield record
    for part, table in zip(parts, tables, strict=True):
        if count:
            part.replace(table)
        else:
            part.unlink()


def _write_pictures(result, *, folder, card, source, products):
    """Writes what there is to write of one pair, and draws its picture for the video, if there is one."""
    prediction = result.prediction
    for gas, mask in prediction.masks.items():
        if "masks" in products:
            overlays.save(folder / "masks" / f"{result.name}_{gas}.png", mask)
        if "overlays" in products:
            overlay = overlays.overlay(result.frames[gas][..., 0], mask, gas)
            overlays.save(folder / "overlays" / f"{result.name}_{gas}.png", overlay)
    if source.rate is None or "video" not in products:
        return None
    caption = f"{result.time:.2f} s"
    if prediction.label:
        caption = f"{prediction.label} {prediction.probabilities[prediction.label]:.2f}   {caption}"
    bars = [prediction.probabilities.get(name, np.nan) for name in CLASSES] if card.classifies else None
    return overlays.annotated_pair(result.frames, prediction.masks, caption, bars, gases=source.gases, size=PANEL)


class _Timeline:
    """What the picture over time shows: a few numbers of every pair."""

    def __init__(self, card, gases):
        self._card = card
        self._times, self._probabilities, self._areas = [], [], {gas: [] for gas in card.segmented if gas in gases}

    def add(self, result):
        prediction = result.prediction
        self._times.append(result.time)
        self._probabilities.append([prediction.probabilities.get(name, np.nan) for name in CLASSES])
        for gas, areas in self._areas.items():
            areas.append(prediction.plumes[gas].fraction if gas in prediction.plumes else np.nan)

    def chart(self):
        timed = None not in self._times
        return plots.timeline_chart(
            np.array(self._times if timed else range(len(self._times))),
            np.array(self._probabilities) if self._card.classifies else None,
            {gas: np.array(areas) for gas, areas in self._areas.items()},
            unit="s" if timed else "frame",
        )


def _batched(items, size):
    items = iter(items)
    while batch := list(itertools.islice(items, size)):
        yield batch


def _rounded(value, digits):
    return None if value is None else round(value, digits)
