"""Predicts recordings; reading, the model and writing run in parallel."""

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

# Files to write besides the tables and the timeline; the video only for videos.
PRODUCTS = ("masks", "overlays", "video")
# Width and height of a panel of the annotated video, in pixels.
PANEL = (640, 480)


@dataclasses.dataclass(frozen=True)
class PredictedPair:
    """Holds the readable frames of a pair by gas, error messages of the others, and the prediction if any."""

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
      predictor, source: the model and the frames.
      output: folder, created if missing.
      batch_size: number of pairs per call of the model.
      products: names from `PRODUCTS`.
      stop: a request ends the prediction after the current pair; results up to it are written.

    Returns:
      `DONE`; `PARTLY_DONE` if a frame is unreadable, and printed; `NOTHING_DONE` if all are; `RUN_AGAIN` if stopped.

    Raises:
      UserError: if the model reads none of the gases, or the disk is full, which leaves `predictions.csv.part`.
    """
    card = predictor.card
    if not set(source.gases) & set(card.gases):
        read = " and ".join(card.gases)
        raise UserError(f"This model reads {read} alone, and there are only frames of {source.gases[0]}.")
    predictor.warm_up(batch_size)
    folder, timeline, counts, skipped = Path(output), [], collections.Counter(), 0
    if folder.is_dir() and any(folder.iterdir()):
        print(f"{output} holds files already; those with other names stay")
    start = time.perf_counter()
    with full_disk(output, "a prediction"), contextlib.ExitStack() as stack:
        record = stack.enter_context(_tables(folder, card))
        video = stack.enter_context(VideoWriter(folder / "annotated.mp4", source.rate or 1))  # no file without pictures
        write_fn = functools.partial(_write_pictures, folder=folder, card=card, source=source, products=products)
        results = stack.enter_context(contextlib.closing(predict_pairs(predictor, source.pairs, batch_size, write_fn)))
        for result, picture in tqdm(results, total=source.total, unit="pair", desc="predict", disable=None):
            for fault in result.faults.values():
                tqdm.write(f"skipped: {fault}")
                skipped += 1
            if (prediction := result.prediction) is not None:
                counts[" and ".join(gas.upper() for gas in GASES if gas in result.frames)] += 1
                record(result)
                timeline.append((result.time, prediction.probabilities, prediction.plumes))
                if picture is not None:
                    video.write(picture, result.time)
            if stop is not None and stop.requested:
                break
    done = counts.total()
    if not done:
        print("Nothing could be predicted: no frame is readable.")
        return NOTHING_DONE
    if done > 1:
        overlays.save(folder / "timeline.png", _timeline_chart(timeline, card, source.gases))
    by_gas = ", ".join(f"{count} of {gases}" for gases, count in counts.items())
    print(f"{done} predicted into {output} ({by_gas}), {done / (time.perf_counter() - start):.1f} a second")
    if len(source.gases) == 2 and not any(" and " in gases for gases in counts):
        print("WARNING: No frame of one gas goes with one of the other; see docs/prediction.md for how frames pair.")
    if stop is not None and stop.requested:
        print("stopped early; the same command starts the prediction again")
        return RUN_AGAIN
    return PARTLY_DONE if skipped else DONE


def predict_pairs(
    predictor: Predictor, pairs: Iterable[Pair], batch_size: int, write_fn: Callable[[PredictedPair], object]
) -> Iterator[tuple[PredictedPair, object]]:
    """Predicts pairs in order; other threads read later pairs and write earlier ones while the model runs.

    Args:
      predictor: the model.
      pairs: pairs of frames or files, taken in a thread of their own.
      batch_size: pairs per call of the model; the last batch is padded, since a backend may compile for each size.
      write_fn: function of each predicted pair, called from several threads.

    Yields:
      The pair, and the result of `write_fn`, None if the pair has no prediction.
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

        def prefetch(threads, function, items, depth):
            pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(threads))
            return stack.enter_context(contextlib.closing(prefetch_map(pool, function, items, depth=depth)))

        cores, items = os.cpu_count() or 1, iter(pairs)
        taken = prefetch(1, lambda _: next(items, None), itertools.count(), depth)
        loaded = prefetch(cores, read, itertools.takewhile(lambda pair: pair is not None, taken), depth)
        batches = iter(lambda: list(itertools.islice(loaded, batch_size)), [])
        predicted = prefetch(1, run, batches, 1)
        yield from prefetch(cores, finish, itertools.chain.from_iterable(predicted), depth)


def to_record(result: PredictedPair, card: ModelCard) -> dict[str, str | float | None]:
    """Returns the prediction of one pair as flat values: a row of `predictions.csv`, a line of `predictions.jsonl`."""
    prediction = result.prediction
    record = {"frame": result.name, "time": _rounded(result.time, 4)}
    for gas in GASES:
        record[gas] = "read" if gas in result.frames else "unreadable" if gas in result.faults else "absent"
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
    """Yields a function that adds a predicted pair to the tables; complete tables replace earlier ones."""
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
    """Writes the mask and overlay files of one pair, and returns its picture for the video, if there is one."""
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
    bars = _by_class(prediction.probabilities) if card.classifies else None
    return overlays.annotated_pair(result.frames, prediction.masks, caption, bars, gases=source.gases, size=PANEL)


def _timeline_chart(timeline, card, gases):
    """Draws the timeline from time, probabilities and plumes of every pair."""
    times, probabilities, plumes = zip(*timeline, strict=True)
    segmented = [gas for gas in card.segmented if gas in gases]
    areas = {gas: np.array([pair[gas].fraction if gas in pair else np.nan for pair in plumes]) for gas in segmented}
    rows = np.array([_by_class(pair) for pair in probabilities]) if card.classifies else None
    if None in times:
        return plots.timeline_chart(np.arange(len(times)), rows, areas, unit="frame")
    return plots.timeline_chart(np.array(times), rows, areas, unit="s")


def _by_class(probabilities):
    return [probabilities.get(name, np.nan) for name in CLASSES]


def _rounded(value, digits):
    return None if value is None else round(value, digits)
