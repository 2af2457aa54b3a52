"""Exports a trained model, and compares the export with the model on real frames before it is kept."""

import contextlib
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import jax
import numpy as np

from fume_jax.data.dataset import Dataset
from fume_jax.data.images import read_frame
from fume_jax.inference import quantization
from fume_jax.inference.backends import Backend, backend_class
from fume_jax.inference.card import ModelCard
from fume_jax.inference.formats import FORMATS
from fume_jax.inference.jax_backends import JaxBackend
from fume_jax.inference.onnx_backend import OnnxBackend
from fume_jax.inference.predictor import Predictor, prepare_pair, pretrained_examples, stack
from fume_jax.inference.quality import read_examples
from fume_jax.models.fume import MIN_SIZE
from fume_jax.runtime import files
from fume_jax.runtime.errors import UserError
from fume_jax.schema import GAS, GASES
from fume_jax.training.checkpoint import only_weights

# Pairs to compare on; each is compared with one of its gases absent too.
PAIRS = 8
# The largest allowed difference of logits, and the least share of equal classes.
EXACT = (1e-4, 0.9999)
HALF = (0.5, 0.999)  # in half precision
# Factors by which frames of the two gases are resized to compare files that take any size.
SCALES = ((1.0, 1.0), (2.0, 1.3), (0.55, 0.7))

# The formats that each option is for.
FORMATS_OF_OPTION = {"dynamic_size": ("onnx",), "end_to_end": ("onnx",), "int8": ("onnx", "openvino")}

Inputs = dict[str, np.ndarray]


class Parity(NamedTuple):
    """Compares an output of two backends: the largest difference, and the share of `decisions` with equal classes."""

    output: str
    max_error: float
    agreement: float
    decisions: int


def export_run(
    workdir: str | Path,
    format: str,
    path: Path,
    *,
    data: str | None = None,
    gas_bias: float = 0.0,
    gas_margin: float | None = None,
    **options: bool,
) -> tuple[list[Parity], str]:
    """Exports the best checkpoint of a run to a format of `FORMATS`, and compares the export with the model.

    Args:
      workdir, format: run folder, and name of the format.
      path: file to write, or folder for `weights`.
      data: dataset to compare on; if None, that of the run, or, if that is missing, the pretrained model's examples.
      gas_bias, gas_margin: as `JaxBackend` takes them, if the model segments.
      options: `dynamic_size`, to accept frames of any size, or `end_to_end`, to do so with all that is done before and
        after the model, only for `onnx`; or `int8`, to compute in 8 bits, also for `openvino`.

    Returns the comparison of each output, and a description of the frames. Raises UserError, and writes nothing, if
    `workdir` is no run, a package is missing, `path` holds something else, or the export differs.
    """
    backend = backend_class(format)
    _check_path(path, format)
    options = {name: value for name, value in options.items() if value}
    _check_options(format, options, gas_bias, gas_margin)
    # StableHLO computes as the run does; the others in float32, which accelerators round unless set otherwise.
    native = format == "stablehlo"
    dtype = None if native else "float32"
    precision = contextlib.nullcontext() if native else jax.default_matmul_precision("highest")
    model = JaxBackend(workdir, dtype, gas_bias, gas_margin)
    changed = bool(gas_bias) or gas_margin is not None
    if changed and not model.card.segmented:
        raise UserError(f"--gas_bias and --gas_margin are for models that segment gas, which {workdir} does not.")
    # Each compilation may round sums in half precision in another order.
    half = format == "weights" or (native and model.card.config["model"]["dtype"] != "float32")
    pairs, source = _pairs(model.card, data)
    batches = _batches(model.card, pairs, sizes=2 if "dynamic_size" in options else 1)
    with files.full_disk(path.parent, "an export"), files.scratch(path.parent, ".export-") as folder, precision:
        part = folder / path.name
        if "int8" in options:
            source += f"; {write_quantized(format, part, model, data)}"
        else:
            backend.write(part, model.model, model.card, **options)
        exported = JaxBackend(part, dtype) if format == "weights" else backend(part)
        parities = compare(model, exported, batches)
        if "end_to_end" in options:
            parities += compare_end_to_end(model, exported, pairs)
        if "int8" not in options:
            _check(parities, HALF if half else EXACT, source)
        if changed:
            found, before = (_frames_with_gas(x, batches[1]) for x in (model, JaxBackend(workdir, dtype)))
            source += f"; gas is found in {found} of their frames, in {before} without the change"
        if path.is_dir():  # of earlier weights; other files in it stay
            for file in part.iterdir():
                os.replace(file, path / file.name)
        else:
            if format == "openvino":
                os.replace(part.with_suffix(".bin"), path.with_suffix(".bin"))
            os.replace(part, path)
    return parities, source


def _check_path(path, format):
    suffix = FORMATS[format].suffix
    if suffix and path.suffix != suffix:
        raise UserError(f"--output={path} does not end in {suffix}, as files of --format={format} do.")
    if path.exists() and not (path.is_dir() if format == "weights" else path.is_file()):
        raise UserError(f"--output={path} is a {'folder' if path.is_dir() else 'file'} already; choose another name.")
    if path.is_dir() and any(path.iterdir()) and not only_weights(path):
        raise UserError(f"--output={path} holds something else already; choose a new folder.")


def _check_options(format, options, gas_bias, gas_margin):
    for name in options:
        if format not in FORMATS_OF_OPTION[name]:
            raise UserError(f"--{name} is for --format={' and '.join(FORMATS_OF_OPTION[name])}, not for {format}.")
    if len(options) > 1:
        raise UserError(f"{' and '.join(f'--{name}' for name in options)} do not go together; choose one of them.")
    if not math.isfinite(gas_bias):
        raise UserError(f"--gas_bias={gas_bias}: expected a number such as -0.7.")
    if gas_margin is not None and not 0 <= gas_margin < math.inf:
        raise UserError(f"--gas_margin={gas_margin}: expected a number of at least 0, such as 3.")


def write_quantized(format: str, path: Path, model: JaxBackend, data: str | None) -> str:
    """Writes a file in 8 bits, `onnx` or `openvino`, and returns in words how it compares with the model.

    A dataset with fewer pairs than 8 bits want is warned of. Raises UserError without one to calibrate on, that of the
    run if `data` is None, or if the file does worse.
    """
    card, data = model.card, data or model.card.config["data"]["path"]
    if not os.path.isdir(data):
        raise UserError(f"--int8 is calibrated on frames of training, and there is no {data}: add --data=DATASET.")
    calibrating = read_examples(card, data, "train", quantization.CALIBRATED)
    compared = read_examples(card, data, "val", quantization.COMPARED)
    if len(calibrating) < quantization.CALIBRATED or len(compared) < quantization.COMPARED:
        print(
            f"WARNING: 8 bits are calibrated on {len(calibrating)} pairs of training and checked on {len(compared)} of "
            f"validation, where {quantization.CALIBRATED} and {quantization.COMPARED} are wanted: they may do worse "
            "on other frames. --data=DATASET names a larger dataset.",
            flush=True,
        )
    with files.scratch(path.parent, ".float-") as folder:
        backend_class("onnx").write(folder / "model.onnx", model.model, card)
        quantize = {"onnx": quantization.quantize_onnx, "openvino": quantization.quantize_openvino}[format]
        quantize(path, folder / "model.onnx", card, calibrating)
    found = quantization.check_quality(model, backend_class(format)(path), compared)
    return f"calibrated on {len(calibrating)} pairs, and on {len(compared)} of the validation split {found}"


def _check(parities, tolerance, source):
    max_error, min_agreement = tolerance
    worst = max(parities, key=lambda parity: parity.max_error)
    least = min(parities, key=lambda parity: parity.agreement)
    if not (worst.max_error <= max_error and least.agreement >= min_agreement):
        raise UserError(
            f"The export differs from the model on {source}: {worst.output} by up to {worst.max_error:.1e} "
            f"({max_error:.0e} allowed), classes of {least.output} agree in {least.agreement:.3%} "
            f"({min_agreement:.2%} expected). Nothing was written."
        )


def compare(a: Backend, b: Backend, batches: Iterable[Inputs]) -> list[Parity]:
    """Compares every output of two backends on the same batches."""
    errors, agreed, decisions = {}, {}, {}
    for batch in batches:
        of_a, of_b = a(**batch), b(**batch)
        if of_a.keys() != of_b.keys():
            raise UserError(f"Outputs differ: {', '.join(of_a)} and {', '.join(of_b)}.")
        for name in of_a:
            same = of_a[name].argmax(-1) == of_b[name].argmax(-1)
            # NaN counts as an infinite difference.
            error = float(np.nan_to_num(np.abs(of_a[name] - of_b[name]), nan=np.inf).max())
            errors[name] = max(errors.get(name, 0.0), error)
            agreed[name] = agreed.get(name, 0) + int(same.sum())
            decisions[name] = decisions.get(name, 0) + same.size
    return [Parity(name, errors[name], agreed[name] / decisions[name], decisions[name]) for name in errors]


def _frames_with_gas(model, batch):
    """Counts the frames of a batch in which a model finds any gas."""
    outputs, present = model(**batch), dict(zip(GASES, batch["modality_mask"].T, strict=True))
    masks = {gas: outputs[f"{gas}_seg_logits"].argmax(-1) for gas in model.card.segmented}
    return int(sum(((mask == GAS).any((1, 2)) * present[gas]).sum() for gas, mask in masks.items()))


def compare_end_to_end(model: Backend, exported: OnnxBackend, pairs: Sequence[dict]) -> list[Parity]:
    """Compares what an ONNX file with `end_to_end` makes of frames with what a `Predictor` does.

    `pairs` are frames uint8 [H, W, 1] by gas. They are compared as they are, larger and smaller, and so that the gases
    differ in size.
    """
    predictor, found = Predictor(model), {}
    for pair, scales in itertools.product(pairs, SCALES):
        frames = {gas: _scaled(x, scale) for (gas, x), scale in zip(pair.items(), scales, strict=False)}
        prediction = predictor.predict([frames])[0]
        outputs = exported.run(**end_to_end_inputs(frames))
        for gas, mask in prediction.masks.items():
            found.setdefault(f"{gas}_mask", []).append((mask, outputs[f"{gas}_mask"][0], 0.0))
        if prediction.label is not None:
            expected, own = np.array(list(prediction.probabilities.values())), outputs["probabilities"][0]
            pair = expected.argmax(), own.argmax(), np.abs(expected - own).max()
            found.setdefault("probabilities", []).append(pair)
    return [
        Parity(name, float(max(e for *_, e in cases)), *_equal([(a, b) for a, b, _ in cases]))
        for name, cases in found.items()
    ]


def end_to_end_inputs(frames: Mapping[str, np.ndarray]) -> Inputs:
    """Converts frames uint8 [H, W, 1] by gas to the inputs of an ONNX file with `end_to_end`, for a batch of one."""
    absent = np.zeros((1, 1, 1), np.uint8)
    inputs = {gas: frames[gas][None, ..., 0] if gas in frames else absent for gas in GASES}
    return inputs | {"modality_mask": np.array([[gas in frames for gas in GASES]], np.float32)}


def _equal(cases):
    """Returns the share of equal values in pairs of arrays, and their number."""
    total = sum(np.size(a) for a, _ in cases)
    return sum(int((a == b).sum()) for a, b in cases) / total, total


def _scaled(frame, scale):
    size = (max(1, round(scale * frame.shape[1])), max(1, round(scale * frame.shape[0])))
    return frame if scale == 1 else cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR)[..., None]


def _pairs(card: ModelCard, data) -> tuple[list[dict[str, np.ndarray]], str]:
    """Returns pairs of frames to compare on, and where they are from."""
    path = data or card.config["data"]["path"]
    if data or os.path.isdir(path):
        pairs = _dataset_pairs(path)
        return pairs, f"{len(pairs)} pairs of the test split of {path}"
    examples = pretrained_examples().values()
    pairs = [{gas: read_frame(file) for gas, file in files.items()} for files in examples]
    return pairs, "the examples of the pretrained model"


def _batches(card: ModelCard, pairs, sizes) -> list[Inputs]:
    """Creates batches of one and of more pairs, with both gases and with one, in `sizes` sizes, the model's first."""
    batches = []
    for scale in (1.0, 0.75)[:sizes]:
        size = (max(MIN_SIZE, round(scale * card.height)), max(MIN_SIZE, round(scale * card.width)))
        batch = stack([prepare_pair(frames, *size) for frames in pairs])
        one_gas = np.eye(len(GASES), dtype=np.float32)
        alone = [batch | {"modality_mask": batch["modality_mask"] * mask} for mask in one_gas]
        batches += [{name: x[:1] for name, x in batch.items()}, batch, *alone]
    return batches


def _dataset_pairs(path):
    split = Dataset(path).split("test")
    examples = [split[int(i)] for i in np.unique(np.linspace(0, len(split) - 1, PAIRS).astype(int))]
    return [
        {gas: example[f"{gas}_frame"] for i, gas in enumerate(GASES) if example["modality_mask"][i]}
        for example in examples
    ]
