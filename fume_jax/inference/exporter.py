"""Export of a trained model, checked against the model itself on real frames before it counts as done."""

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from fume_jax.data.dataset import Dataset
from fume_jax.data.images import read_frame
from fume_jax.inference.backends import BACKENDS, Backend, JaxBackend
from fume_jax.inference.card import ModelCard
from fume_jax.inference.formats import FORMATS
from fume_jax.inference.predictor import prepare_pair, pretrained_examples, stack
from fume_jax.models.fume import MIN_SIZE
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.preflight import full_disk
from fume_jax.schema import GASES
from fume_jax.training.checkpoint import only_weights

# Pairs that are compared on, besides the same with one gas taken away.
PAIRS = 8
# How far apart logits may be, and how often the highest must be of the same class.
EXACT = (1e-4, 0.9999)
HALF = (0.5, 0.999)  # in half precision

Inputs = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Parity:
    """How one output of two backends compares: the largest difference, and how often the highest is of one class."""

    output: str
    max_error: float
    agreement: float
    decisions: int


def export_run(
    workdir: str | Path, format: str, path: Path, *, dynamic_size: bool = False, data: str | None = None
) -> tuple[list[Parity], str]:
    """Writes the best checkpoint of a run in another format, and compares what that says with what the model says.

    Args:
      workdir: run folder.
      format: one of `FORMATS`.
      path: of the file, or of the folder for `weights`.
      dynamic_size: take frames of any size; of `onnx` alone.
      data: prepared dataset to compare on; by default that of the run, or, if it is not there, the frames shipped.

    Returns:
      How each output compares, and in words what on.

    Raises:
      UserError: if there is no such run, a package is missing, the folder holds something else, or the two differ, in
        which case nothing is written.
    """
    backend, suffix = BACKENDS[format], FORMATS[format].suffix
    if suffix and path.suffix != suffix:
        raise UserError(f"--output={path} does not end in {suffix}, as files of --format={format} do.")
    if path.is_file() if format == "weights" else path.is_dir():
        raise UserError(f"--output={path} is a {'folder' if path.is_dir() else 'file'} already; choose another name.")
    if path.is_dir() and any(path.iterdir()) and not only_weights(path):
        raise UserError(f"--output={path} holds something else already; choose a new folder.")
    if dynamic_size and format != "onnx":
        raise UserError(f"--dynamic_size is for --format=onnx; {format} takes frames of the size of training.")
    # StableHLO computes as the run does, the others in float32, which accelerators round unless told otherwise.
    native = format == "stablehlo"
    dtype = None if native else "float32"
    precision = contextlib.nullcontext() if native else jax.default_matmul_precision("highest")
    model = JaxBackend(workdir, dtype)
    # Sums in half precision round in another order whenever they are compiled anew.
    half = format == "weights" or (native and model.card.config["model"]["dtype"] != "float32")
    batches, source = _batches(model.card, data, sizes=2 if dynamic_size else 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        full_disk(path.parent, "an export"),
        tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder,
        precision,
    ):
        part = Path(folder) / path.name
        backend.write(part, model.model, model.card, **({"dynamic_size": True} if dynamic_size else {}))
        exported = JaxBackend(part, dtype) if format == "weights" else backend(part)
        parities = compare(model, exported, batches)
        _check(parities, HALF if half else EXACT, source)
        _install(part, path)
    return parities, source


def _check(parities, allowed, source):
    max_error, min_agreement = allowed
    worst = max(parities, key=lambda parity: parity.max_error)
    least = min(parities, key=lambda parity: parity.agreement)
    if not (worst.max_error <= max_error and least.agreement >= min_agreement):
        raise UserError(
            f"The export differs from the model on {source}: {worst.output} by up to {worst.max_error:.1e} "
            f"({max_error:.0e} allowed), classes of {least.output} agree in {least.agreement:.3%} "
            f"({min_agreement:.2%} expected). Nothing was written."
        )


def compare(a: Backend, b: Backend, batches: Iterable[Inputs]) -> list[Parity]:
    """Every output of two backends on the same batches."""
    errors, agreed, decisions = {}, {}, {}
    for batch in batches:
        ours, others = a(**batch), b(**batch)
        if ours.keys() != others.keys():
            raise UserError(f"Outputs differ: {', '.join(ours)} and {', '.join(others)}.")
        for name in ours:
            same = ours[name].argmax(-1) == others[name].argmax(-1)
            # Not a number compares as larger than whatever is allowed.
            error = float(np.nan_to_num(np.abs(ours[name] - others[name]), nan=np.inf).max())
            errors[name] = max(errors.get(name, 0.0), error)
            agreed[name] = agreed.get(name, 0) + int(same.sum())
            decisions[name] = decisions.get(name, 0) + same.size
    return [Parity(name, errors[name], agreed[name] / decisions[name], decisions[name]) for name in errors]


def _batches(card: ModelCard, data, sizes) -> tuple[list[Inputs], str]:
    """Batches of one and of more pairs, with both gases and with one, of the size of training and another."""
    path = data or card.config["data"]["path"]
    if data or os.path.isdir(path):
        pairs, source = _dataset_pairs(path), f"the test split of {path}"
    else:
        shipped = pretrained_examples().values()
        pairs = [{gas: read_frame(file) for gas, file in files.items()} for files in shipped]
        source = "the frames that are shipped"
    batches = []
    for scale in (1.0, 0.75)[:sizes]:
        size = (max(MIN_SIZE, round(scale * card.height)), max(MIN_SIZE, round(scale * card.width)))
        batch = stack([prepare_pair(frames, *size) for frames in pairs])
        one_gas = np.eye(len(GASES), dtype=np.float32)
        alone = [batch | {"modality_mask": batch["modality_mask"] * mask} for mask in one_gas]
        batches += [{name: x[:1] for name, x in batch.items()}, batch, *alone]
    return batches, source


def _dataset_pairs(path):
    split = Dataset(path).split("test")
    chosen = np.unique(np.linspace(0, len(split) - 1, PAIRS).astype(int))
    examples = [split[int(index)] for index in chosen]
    return [
        {gas: example[f"{gas}_frame"] for gas, present in zip(GASES, example["modality_mask"], strict=True) if present}
        for example in examples
    ]


def _install(part, path):
    if path.is_dir():
        # Earlier weights, beside which there may be other files.
        for file in part.iterdir():
            os.replace(file, path / file.name)
    else:
        os.replace(part, path)
