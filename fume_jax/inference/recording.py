"""Predicts the frames of a recording; reading, the model and writing run in parallel."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fume_jax.data.scale import Limits
from fume_jax.data.sources import Pair, Source, load, open_source
from fume_jax.inference.card import ModelCard
from fume_jax.inference.output import ABSTAINS, USUAL, AnnotatedVideo, tables, write_pictures
from fume_jax.inference.predictor import Prediction, Predictor
from fume_jax.inference.summary import SUMMARY, Series, write_summary
from fume_jax.learning.plume import Contrast, measure_contrast
from fume_jax.runtime.byproducts import ByProducts
from fume_jax.runtime.errors import NOTHING_DONE, RUN_AGAIN, UserError, needs_package
from fume_jax.runtime.files import full_disk
from fume_jax.runtime.names import printable
from fume_jax.runtime.preemption import StopRequest
from fume_jax.runtime.prefetch import prefetch_map
from fume_jax.schema import CLASSES, GASES

# Contrasts of a plume that the tables have.
CONTRASTS = ("mean", "largest")


@dataclasses.dataclass(frozen=True)
class PredictedPair:
    """Holds the readable frames of a pair by gas, error messages of the others, and the prediction if any.

    `contrasts` of the plumes are in the unit of the source. `notes` are for the user, by gas. `logits` are those of the
    model while the files of the pair are written, and then forgotten, since they are large.
    """

    name: str
    time: float | None
    frames: dict[str, np.ndarray]
    faults: dict[str, str]
    prediction: Prediction | None = None
    contrasts: dict[str, Contrast | None] = dataclasses.field(default_factory=dict)
    notes: dict[str, str] = dataclasses.field(default_factory=dict)
    logits: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def predict_recording(
    predictor: Predictor,
    source: Source,
    output: str,
    *,
    batch_size: int,
    products: Sequence[str] = USUAL,
    mm_per_pixel: float | None = None,
    title: str | None = None,
    settings: Mapping | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Predicts a recording and writes tables, pictures, a video and a page to a folder; see `fume_jax.predict`.

    Args:
      predictor, source: the model and the frames.
      output: folder, created if missing, that no other process writes to; see `output_folder`.
      batch_size: number of pairs per call of the model.
      products: names from `output.PRODUCTS`.
      mm_per_pixel: size of a pixel in the scene, for lengths and areas in millimetres.
      title, settings: name of the recording on its page, and JSON values for its summary; see `summary.write_summary`.
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
    for note in source.notes:
        print(f"note: {note}")
    (folder / SUMMARY).unlink(missing_ok=True)  # it says that all of the folder is there
    by_products, start = ByProducts(tqdm.write), time.perf_counter()
    series = Series(card, source, by_products, mm_per_pixel)
    with full_disk(output, "a prediction"):
        skipped = _predict_frames(predictor, source, folder, batch_size, products, series, by_products, stop)
    stopped = stop is not None and stop.requested
    if len(series) > 1:
        with by_products.attempt("timeline.png"):
            series.save_timeline(folder)
    _print_summary(output, series, source, time.perf_counter() - start)
    code = NOTHING_DONE
    if len(series) and not stopped:
        code = write_summary(folder, series, title, dict(settings or {}), skipped, by_products)
    by_products.summarize()
    if stopped:
        print("stopped early; the same command starts the prediction again")
        return RUN_AGAIN
    return code


def _predict_frames(predictor, source, folder, batch_size, products, series, by_products, stop):
    """Writes tables, pictures and video, and adds each pair to the series; returns the number of unreadable frames."""
    card, told, skipped = predictor.card, set(), 0
    film = source.gases if source.rate is not None and "video" in products else ()
    options = {"folder": folder, "card": card, "products": products, "film": film, "by_products": by_products}
    write = functools.partial(write_pictures, **options)
    # The tables are complete before the video is.
    with AnnotatedVideo(folder, source.rate or 1, by_products) as video:
        results = predict_pairs(predictor, source.pairs, batch_size, write, source.limits)
        with tables(folder, source.total) as record, contextlib.closing(results):
            for result, picture in tqdm(results, total=source.total, unit="pair", desc="predict", disable=None):
                for fault in result.faults.values():
                    tqdm.write(f"skipped: {fault}")
                    skipped += 1
                for gas, note in sorted(set(result.notes.items()) - told):
                    tqdm.write(f"WARNING: frames of {gas.upper()}, such as {printable(result.name)}: {note}")
                told |= set(result.notes.items())
                if result.prediction is not None:
                    record(to_record(result, card, series.mm_per_pixel))
                    series.add(result)
                    if picture is not None:
                        video.write(picture, result.time)
                if stop is not None and stop.requested:
                    break
    return skipped


def find_offset(predictor: Predictor, co2: str, ch4: str, batch_size: int, **options):
    """Estimates by how many seconds the clock of CH4 is ahead, from the gas that the model finds in either film.

    `options` are those of `open_source`. Returns an `Offset` of `fume_jax.learning.offset`. Raises UserError if the
    offset is not clear, or the paths are no films.
    """
    with needs_package("--offset=auto"):
        from fume_jax.learning.offset import estimate_offset
    curves = []
    for gas, paths in (("co2", (co2, None)), ("ch4", (None, ch4))):
        source = open_source(*paths, **options)
        if source.rate is None:
            raise UserError(
                f"--offset=auto is for films, and {paths[0] or paths[1]} holds images, which have no times."
            )
        if gas not in predictor.card.segmented:
            raise UserError(f"--offset=auto needs the areas of both gases, and this model segments no {gas.upper()}.")
        results = predict_pairs(predictor, source.pairs, batch_size, lambda _: None, source.limits)
        found = [(x.time, x.prediction.plumes[gas].area_pixels) for x, _ in results if x.prediction is not None]
        curves.extend(np.array(found, float).reshape(-1, 2).T)
    offset = estimate_offset(*curves)
    if not offset.clear:
        raise UserError(
            f"The offset of {ch4} against {co2} is not clear: the gas areas correlate by {offset.peak:.2f} at most. "
            "Give it by --offset=SECONDS, or 0 if the clocks agree."
        )
    print(f"offset of CH4 {offset.seconds:+.3f} s, where the gas areas correlate by {offset.peak:.2f}", end="")
    drift = offset.drift_seconds
    print("; drift unknown" if drift is None else f"; {drift:+.3f} s of drift from the first half to the second")
    return offset


def _print_summary(output, series, source, seconds):
    if not len(series):
        print("Nothing could be predicted: no frame is readable.")
        return
    by_gas = ", ".join(f"{count} of {gases}" for gases, count in series.counts.items())
    print(f"{len(series)} predicted into {output} ({by_gas}), {len(series) / seconds:.1f} a second")
    if found := series.unlike_training():
        print(f"WARNING: Half of the frames or more are unlike those of training: {', '.join(found)}")
    if len(source.gases) == 2 and not any(" and " in gases for gases in series.counts):
        print("WARNING: No frame of one gas goes with one of the other; see docs/prediction.md for how frames pair.")


def predict_pairs(
    predictor: Predictor,
    pairs: Iterable[Pair],
    batch_size: int,
    write_fn: Callable[[PredictedPair], object],
    limits: Mapping[str, Limits] | None = None,
) -> Iterator[tuple[PredictedPair, object]]:
    """Predicts pairs in order; other threads read later pairs and write earlier ones while the model runs.

    Args:
      predictor: the model.
      pairs: pairs of frames or files, taken in a thread of their own.
      batch_size: pairs per call of the model; the last batch is padded, since a backend may compile for each size.
      write_fn: function of each predicted pair, called from several threads.
      limits: of the grey levels, by gas; see `Source`.

    Yields:
      The pair, and the result of `write_fn`, None if the pair has no prediction.
    """

    def read(pair):
        loaded = load(pair, limits)
        inputs = predictor.prepare(loaded.frames) if loaded.frames else None
        pair = PredictedPair(pair.name, pair.time, loaded.frames, loaded.faults, notes=loaded.notes)
        return pair, loaded.values, inputs

    def run(batch):
        inputs = [x for *_, x in batch if x is not None]
        if not inputs:
            return [(pair, values, None, None) for pair, values, _ in batch]
        logits, milliseconds = predictor.run(inputs + [inputs[-1]] * (batch_size - len(inputs)))
        logits, milliseconds = iter(logits), milliseconds * batch_size / len(inputs)
        return [(pair, values, None if x is None else next(logits), milliseconds) for pair, values, x in batch]

    def finish(item):
        pair, values, logits, milliseconds = item
        if logits is None:
            return pair, None
        prediction = predictor.interpret(pair.frames, logits, milliseconds)
        contrasts = {gas: measure_contrast(values[gas], mask) for gas, mask in prediction.masks.items()}
        pair = dataclasses.replace(pair, prediction=prediction, contrasts=contrasts)
        return pair, write_fn(dataclasses.replace(pair, logits=logits))

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


def to_record(
    result: PredictedPair, card: ModelCard, mm_per_pixel: float | None = None
) -> dict[str, str | float | None]:
    """Returns the prediction of one pair as flat values: a row of `predictions.csv`, a line of `predictions.jsonl`."""
    prediction = result.prediction
    record = {"frame": printable(result.name), "time": _rounded(result.time, 4)}
    for gas in GASES:
        record[gas] = "read" if gas in result.frames else "unreadable" if gas in result.faults else "absent"
    if card.classifies:
        record["class"] = prediction.label
        if card.abstain_below is not None:
            record["abstain"] = ABSTAINS[prediction.abstains]
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
        contrast = result.contrasts.get(gas)
        record |= {f"{gas}_contrast_{name}": contrast and float(f"{getattr(contrast, name):.5g}") for name in CONTRASTS}
        if mm_per_pixel is not None:
            record[f"{gas}_gas_mm2"] = plume and _rounded(plume.area_pixels * mm_per_pixel**2, 2)
            for name in ("length", "dispersion"):
                pixels = plume and getattr(plume, f"{name}_pixels")
                record[f"{gas}_{name}_mm"] = None if pixels is None else round(pixels * mm_per_pixel, 2)
    if card.training_frames is not None:
        record["unlike_training"] = " ".join(prediction.unlike_training)
    return record | {"milliseconds": _rounded(prediction.milliseconds, 2)}


def _rounded(value, digits):
    return None if value is None else round(value, digits)
