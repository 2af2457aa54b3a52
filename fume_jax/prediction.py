"""Prediction on files with the best checkpoint of a run."""

import csv
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import jax
import ml_collections
import numpy as np
from tqdm import tqdm

from fume_jax import augment, build, pictures, sharding
from fume_jax.errors import DONE, NOTHING_DONE, PARTLY_DONE
from fume_jax.frames import UnreadableFrame, read_frame
from fume_jax.input_pipeline import padding_example
from fume_jax.vocabulary import CLASSES, GAS, GASES

Pair = tuple[str, dict[str, Path]]


def predict_files(config: ml_collections.ConfigDict, workdir: str, pairs: list[Pair], output: str) -> int:
    """Predicts pairs of frame files and writes masks, overlays and `predictions.csv` to `output`.

    Args:
      config: of the run.
      workdir: folder of the run.
      pairs: name and path by gas of every pair; a gas may be absent.
      output: folder, made if need be.

    Returns:
      `DONE`; `PARTLY_DONE` if a file could not be read, which is listed and its pair skipped; `NOTHING_DONE` if none
      could.
    """
    mesh = sharding.create_mesh()
    model, _ = build.best_model(config, workdir, mesh)
    _, predict_fn = build.eval_and_predict_fns(config, mesh)
    options = build.abstract_model(config).options
    classes = ("class", *CLASSES) if options.classifies else ()
    batch_size = mesh.size * max(1, min(config.eval.batch_size, len(pairs)) // mesh.size)
    skipped, done = [], 0
    Path(output).mkdir(parents=True, exist_ok=True)
    table = Path(output) / "predictions.csv"
    unfinished = table.with_suffix(".csv.part")  # an earlier table stays until this one is complete
    with open(unfinished, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["frame", *classes, *(f"{gas}_gas_fraction" for gas in options.segmented)])
        readable = _read(tqdm(pairs, unit="frame", desc="predict", disable=None), skipped)
        while chunk := list(itertools.islice(readable, batch_size)):
            batch = _batch([frames for _, frames in chunk], batch_size, config.data.height, config.data.width)
            outputs = jax.device_get(predict_fn(**model, batch=sharding.from_all(batch, mesh)))
            for i, (name, frames) in enumerate(chunk):
                segmented = [gas for gas in frames if gas in options.segmented]
                masks = {gas: _mask(outputs, gas, i, frames[gas].shape[:2]) for gas in segmented}
                _write_pictures(Path(output), name, frames, masks)
                # Nothing is said of frames that the model does not read.
                read = set(frames) & set(options.gases)
                predicted = _class(outputs, i) if options.classifies and read else ("",) * len(classes)
                writer.writerow([name, *predicted, *(_fraction(masks.get(gas)) for gas in options.segmented)])
            done += len(chunk)
    if done:
        unfinished.replace(table)
    else:
        unfinished.unlink()
    for line in skipped:
        print(f"skipped: {line}")
    print(f"{done} of {len(pairs)} frames or pairs predicted into {output}")
    if not skipped:
        return DONE
    return PARTLY_DONE if done else NOTHING_DONE


def _read(pairs: Iterable[Pair], skipped: list[str]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Reads pairs; one with an unreadable file is left out and noted in `skipped`."""
    for name, paths in pairs:
        frames = {}
        for gas, path in paths.items():
            try:
                frames[gas] = read_frame(path)
            except UnreadableFrame as error:
                skipped.append(f"{path}: {error}")
        if len(frames) == len(paths):
            yield name, frames


def _batch(pairs, batch_size, height, width):
    examples = []
    for frames in pairs:
        example = padding_example(height, width) | {"valid": np.True_}
        example["modality_mask"] = np.array([gas in frames for gas in GASES], np.float32)
        for gas, frame in frames.items():
            example[f"{gas}_frame"] = augment.normalise(augment.resize_frame(frame, height, width), 1)
        examples.append(example)
    examples += [padding_example(height, width)] * (batch_size - len(examples))
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def _mask(outputs, gas, i, size):
    """Classes at the frame's own size: logits are enlarged, not labels, so that outlines stay smooth."""
    logits = cv2.resize(outputs[f"{gas}_seg_logits"][i], size[::-1], interpolation=cv2.INTER_LINEAR)
    return logits.argmax(-1).astype(np.uint8)


def _class(outputs, i):
    logits = outputs["cls_logits"][i].astype(np.float64)
    p = np.exp(logits - logits.max())
    return CLASSES[logits.argmax()], *(f"{x:.4f}" for x in p / p.sum())


def _fraction(mask):
    """Share of the frame that is gas; empty for an absent gas."""
    return "" if mask is None else f"{(mask == GAS).mean():.5f}"


def _write_pictures(output, name, frames, masks):
    for gas, mask in masks.items():
        pictures.save(output / "masks" / f"{name}_{gas}.png", mask)
        overlay = pictures.overlay(frames[gas][..., 0], mask, gas)
        pictures.save(output / "overlays" / f"{name}_{gas}.png", overlay)
