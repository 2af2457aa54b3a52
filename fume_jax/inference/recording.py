"""Predicts recordings; reading, the model and writing run in parallel."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fume_jax.data.sources import Pair, Source, load
from fume_jax.inference.card import ModelCard
from fume_jax.inference.output import PRODUCTS, Film, save_timeline, tables, write_pictures
from fume_jax.inference.predictor import Prediction, Predictor
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN, UserError
from fume_jax.runtime.names import printable
from fume_jax.runtime.preemption import StopRequest
from fume_jax.runtime.prefetch import prefetch_map
from fume_jax.runtime.preflight import full_disk
from fume_jax.schema import CLASSES, GASES


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
      output: folder, created if missing, that no other process writes to; see `output_folder`.
      batch_size: number of pairs per call of the model.
      products: names from `PRODUCTS`.
      stop: a request ends the prediction after the current pair; results up to it are written.

    Returns:
      `DONE`; `PARTLY_DONE` if a frame is unreadable or a file besides the tables could not be made, which is printed;
      `NOTHING_DONE` if all frames are unreadable; `RUN_AGAIN` if stopped.

    Raises:
      UserError: if the model reads none of the gases, or the disk has no room for the tables.
    """
    card, folder = predictor.card, Path(output)
    if not set(source.gases) & set(card.gases):
        read = " and ".join(card.gases)
        raise UserError(f"This model reads {read} alone, and there are only frames of {source.gases[0]}.")
    predictor.warm_up(batch_size)
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {".lock"}:
        print(f"{output} holds files already; those with other names stay")
    timeline, counts, skipped, by_products = [], collections.Counter(), 0, ByProducts(tqdm.write)
    film = source.gases if source.rate is not None and "video" in products else ()
    start = time.perf_counter()
    # The tables are complete before the film is.
    with Film(folder, source.rate or 1, by_products) as video, full_disk(output, "a prediction"):
        options = {"folder": folder, "card": card, "products": products, "film": film, "by_products": by_products}
        results = predict_pairs(predictor, source.pairs, batch_size, functools.partial(write_pictures, **options))
        with tables(folder, source.total) as record, contextlib.closing(results):
            for result, picture in tqdm(results, total=source.total, unit="pair", desc="predict", disable=None):
                for fault in result.faults.values():
                    tqdm.write(f"skipped: {fault}")
                    skipped += 1
                if (prediction := result.prediction) is not None:
                    counts[" and ".join(gas.upper() for gas in GASES if gas in result.frames)] += 1
                    record(to_record(result, card))
                    timeline.append((result.time, prediction.probabilities, prediction.plumes))
                    if picture is not None:
                        video.write(picture, result.time)
                if stop is not None and stop.requested:
                    break
    if counts.total() > 1:
        with by_products.attempt("timeline.png"):
            save_timeline(folder, timeline, card, source.gases)
    by_products.summarize()
    _print_summary(output, counts, source, time.perf_counter() - start)
    if stop is not None and stop.requested:
        print("stopped early; the same command starts the prediction again")
        return RUN_AGAIN
    if not counts:
        return NOTHING_DONE
    return PARTLY_DONE if skipped or by_products.failures else DONE


def _print_summary(output, counts, source, seconds):
    if not counts:
        print("Nothing could be predicted: no frame is readable.")
        return
    by_gas = ", ".join(f"{count} of {gases}" for gases, count in counts.items())
    print(f"{counts.total()} predicted into {output} ({by_gas}), {counts.total() / seconds:.1f} a second")
    if len(source.gases) == 2 and not any(" and " in gases for gases in counts):
        print("WARNING: No frame of one gas goes with one of the other; see docs/prediction.md for how frames pair.")


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
    record = {"frame": printable(result.name), "time": _rounded(result.time, 4)}
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
            f"{gas}_parts": plume and plume.parts,
            f"{gas}_dispersion_pixels": plume and _rounded(plume.dispersion_pixels, 1),
        }
    return record | {"milliseconds": _rounded(prediction.milliseconds, 2)}


def _rounded(value, digits):
    return None if value is None else round(value, digits)
