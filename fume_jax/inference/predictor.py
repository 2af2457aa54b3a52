"""Predicts on frames in memory: one pair, or a batch of pairs."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from fume_jax.data.faults import UnreadableFrame
from fume_jax.data.gray import to_gray
from fume_jax.data.images import pillow_to_gray
from fume_jax.data.sources import Pair, load, open_source
from fume_jax.data.transforms import normalize, resize_frame
from fume_jax.inference.backends import Backend, open_backend
from fume_jax.inference.card import ModelCard
from fume_jax.inference.ensemble import Ensemble, Mirrored
from fume_jax.inference.formats import PRETRAINED
from fume_jax.learning import likeness
from fume_jax.learning.plume import Plume, measure_plume
from fume_jax.learning.probabilities import softmax
from fume_jax.runtime.errors import UserError
from fume_jax.schema import CLASSES, GASES

Frame = np.ndarray | Image.Image | str | Path
Inputs = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """Holds the prediction of one pair.

    Attributes:
      label: one of `CLASSES`; None if the model does not classify, or reads none of the pair's gases.
      probabilities: probability of each class, calibrated by the temperature of the card; empty without label.
      masks: uint8 [H, W] in the size of the frame, 0 background, 1 tube, 2 gas, for each frame whose gas the model
        segments.
      plumes: measures of each mask, by gas.
      abstains: whether the model is too unsure of its label for it to be used; None without label, or if the card has
        no limit.
      unlike_training: in what the frames are unlike those of training: some of `grey`, `sharpness`, `size`; empty also
        if the card does not have the frames of training.
      milliseconds: time of the model, divided by the size of the batch.
    """

    label: str | None
    probabilities: dict[str, float]
    masks: dict[str, np.ndarray]
    plumes: dict[str, Plume]
    milliseconds: float
    abstains: bool | None = None
    unlike_training: tuple[str, ...] = ()


class Predictor:
    """Predicts with a trained model on frames as a camera records them.

        predictor = Predictor.load("runs/demo")
        prediction = predictor(co2="frame.png")

    No call changes its state: any number of threads may share one. One that was loaded may be sent to other processes,
    which load it anew. A process that is forked cannot use it, since the threads of JAX do not exist there: `predict`
    raises UserError.
    """

    # The process whose predictors have started JAX.
    _jax_process: int | None = None

    def __init__(self, backend: Backend):
        """Takes an open model; see `load`."""
        self.backend = backend
        self._process = os.getpid()
        self._loaded = None

    @classmethod
    def load(
        cls,
        path: str | Path | Sequence[str | Path] | None = None,
        backend: str | None = None,
        tta: bool = False,
        providers: Sequence[str] | None = None,
    ) -> "Predictor":
        """Loads a run folder or an exported file, or, without `path`, the pretrained model; see `open_backend`.

        Several paths predict as one model, by the mean of their probabilities. With `tta` (test-time augmentation) each
        frame is predicted with its mirror image, by the mean of their probabilities, which takes twice the time.
        `providers` name what ONNX Runtime runs a file with, such as ["CUDA", "CPU"].
        """
        _check_process(cls._jax_process)
        paths = [path] if path is None or isinstance(path, str | Path) else list(path)
        if not paths:
            raise UserError("Name at least one model.")
        opened = [open_backend(one, backend, providers) for one in paths]
        if any(model.uses_jax for model in opened):
            Predictor._jax_process = os.getpid()
        model = Ensemble(opened) if len(opened) > 1 else opened[0]
        predictor = cls(Mirrored(model) if tta else model)
        predictor._loaded = [one and os.path.abspath(one) for one in paths], backend, tta, providers
        return predictor

    def __reduce__(self):
        if self._loaded is None:
            raise UserError("Only a predictor made by Predictor.load can be sent to another process.")
        return Predictor.load, self._loaded

    @property
    def card(self) -> ModelCard:
        """Returns the description of the model: its gases, classes, config and metrics."""
        return self.backend.card

    def __call__(self, co2: Frame | None = None, ch4: Frame | None = None) -> Prediction:
        """Predicts one pair, of which a gas may be absent; the first call may compile, see `warm_up`.

        Args:
          co2, ch4: image file, Pillow image, or array [H, W] or [H, W, C] of any size, C 1 (grey), 3 (RGB) or 4, as
            `numpy.asarray` accepts it. uint8 is used as it is; any other dtype is scaled by the frame's own range.
            Files and Pillow images are turned as their EXIF orientation says; masks are of the upright frame.

        Raises:
          fume_jax.UnreadableFrame: if a file holds no usable image, or a frame is too large.
          ValueError: if there is no frame, or an array or a Pillow image has no defined grey levels.
          UserError: if this process was forked from the one that loaded the model.
        """
        return self.predict([{"co2": co2, "ch4": ch4}])[0]

    def predict(self, pairs: Sequence[Mapping[str, Frame | None]]) -> list[Prediction]:
        """Predicts pairs, each with frames by gas as in `__call__`, in one batch; JAX compiles for every batch size."""
        if not pairs:
            return []
        pairs = [_read(frames) for frames in pairs]
        inputs = [self.prepare(frames) for frames in pairs]
        logits, milliseconds = self.run(inputs)
        return [self.interpret(frames, x, milliseconds) for frames, x in zip(pairs, logits, strict=True)]

    def warm_up(self, batch_size: int = 1) -> None:
        """Predicts a blank batch, so that later calls do not compile."""
        self.run([self.prepare({})] * max(1, batch_size))

    # `predict` in three steps, which may run in different threads.

    def prepare(self, frames: Mapping[str, np.ndarray]) -> Inputs:
        """Prepares one pair for the model; see `prepare_pair`."""
        return prepare_pair(frames, self.card.height, self.card.width)

    def run(self, inputs: Sequence[Inputs]) -> tuple[list[dict[str, np.ndarray]], float]:
        """Returns the logits of each prepared pair, and the milliseconds of the model per pair."""
        _check_process(self._process)
        start = time.perf_counter()
        logits = self.backend(**stack(inputs))
        milliseconds = (time.perf_counter() - start) * 1e3 / len(inputs)
        return [{name: x[i] for name, x in logits.items()} for i in range(len(inputs))], milliseconds

    def interpret(
        self, frames: Mapping[str, np.ndarray], logits: Mapping[str, np.ndarray], milliseconds: float
    ) -> Prediction:
        """Converts the logits of one pair to its prediction; UserError if they are not finite."""
        if not all(np.isfinite(x).all() for x in logits.values()):
            raise UserError("The model's logits are not finite: its parameters are damaged, or its training failed.")
        masks = {gas: _mask(logits[f"{gas}_seg_logits"], x) for gas, x in frames.items() if gas in self.card.segmented}
        # A pair without a frame that the model reads has no class.
        classified = self.card.classifies and any(gas in self.card.gases for gas in frames)
        probabilities = self._probabilities(logits["cls_logits"]) if classified else {}
        label, limit = max(probabilities, key=probabilities.get, default=None), self.card.abstain_below
        return Prediction(
            label=label,
            probabilities=probabilities,
            masks=masks,
            plumes={gas: measure_plume(mask) for gas, mask in masks.items()},
            milliseconds=milliseconds,
            abstains=None if label is None or limit is None else probabilities[label] < limit,
            unlike_training=self._unlike_training(frames),
        )

    def _probabilities(self, logits):
        values = softmax(logits.astype(np.float64) / self.card.temperature)
        return dict(zip(CLASSES, values.tolist(), strict=True))

    def _unlike_training(self, frames):
        known, size = self.card.training_frames, (self.card.height, self.card.width)
        found = set()
        for gas, frame in frames.items() if known else ():
            if gas in self.card.gases:
                found |= likeness.unlike_training(resize_frame(frame, *size), frame.shape[:2], known, gas)
        return tuple(name for name in likeness.CHECKS if name in found)


def _read(pair):
    """Converts files and arrays to frames uint8 [H, W, 1] by gas."""
    given = {gas: frame for gas, frame in pair.items() if frame is not None}
    if not given or set(given) - set(GASES):
        raise ValueError(f"Give a frame of at least one gas, {' or '.join(GASES)}, got {', '.join(given) or 'none'}.")
    paths = {gas: Path(frame) for gas, frame in given.items() if isinstance(frame, str | Path)}
    loaded = load(Pair("", None, paths))
    if loaded.faults:
        raise UnreadableFrame("; ".join(loaded.faults.values()))
    return loaded.frames | {gas: _to_gray(frame) for gas, frame in given.items() if gas not in paths}


def _to_gray(frame):
    if isinstance(frame, Image.Image):
        return pillow_to_gray(frame)  # its array may hold indices of a palette, or inks
    if isinstance(frame, np.ma.MaskedArray):
        frame = frame.filled(0) if frame.dtype == np.uint8 else frame.astype(np.float64).filled(np.nan)
    return to_gray(np.asarray(frame))


def _check_process(process):
    """Raises UserError if another process than this one, of which it is a fork, has the threads of the model."""
    if process not in (None, os.getpid()):
        remedy = 'Start processes by multiprocessing.get_context("spawn"); they may be given the predictor.'
        raise UserError(f"A model that was loaded before a fork cannot be used after it. {remedy}")


def prepare_pair(frames: Mapping[str, np.ndarray], height: int, width: int) -> Inputs:
    """Converts frames uint8 [H, W, 1] by gas to the inputs of a `Backend` for one pair, without batch axis."""
    inputs = {f"{gas}_frame": np.zeros((height, width, 1), np.float32) for gas in GASES}
    inputs |= {f"{gas}_frame": normalize(resize_frame(x, height, width), 1) for gas, x in frames.items()}
    return inputs | {"modality_mask": np.array([gas in frames for gas in GASES], np.float32)}


def stack(inputs: Sequence[Inputs]) -> Inputs:
    """Stacks inputs of `prepare_pair` to a batch."""
    return {name: np.stack([x[name] for x in inputs]) for name in inputs[0]}


def pretrained_examples() -> dict[str, dict[str, Path]]:
    """Returns the simulated example frames of the pretrained model: files by name and gas."""
    folder = str(PRETRAINED / "examples")
    return {pair.name: pair.frames for pair in open_source(folder, folder).pairs}


def _mask(logits, frame):
    """Predicts classes in the frame's own size; resizes logits, not classes, so that outlines stay smooth.

    One class after the other, which for a large frame takes a third of the memory.
    """
    height, width, _ = frame.shape
    mask, highest = np.zeros((height, width), np.uint8), np.full((height, width), -np.inf, logits.dtype)
    for value in range(logits.shape[-1]):
        plane = np.ascontiguousarray(logits[..., value])
        plane = cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)
        mask[plane > highest] = value
        cv2.max(highest, plane, dst=highest)
    return mask
