"""Export of a trained model, checked against the model itself on real frames before it counts as done."""

import dataclasses
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from fume_jax.backends import FORMATS, Backend, JaxBackend
from fume_jax.card import ModelCard
from fume_jax.errors import UserError
from fume_jax.frames import read_frame
from fume_jax.input_pipeline import Dataset
from fume_jax.models.fume import MIN_SIZE
from fume_jax.predictor import prepare_pair, shipped_examples, stack
from fume_jax.vocabulary import GASES

# Pairs that are compared on, besides the same with one gas taken away.
PAIRS = 8
# Between logits; half precision rounds the parameters.
MAX_ERROR = {"onnx": 1e-4, "torch": 1e-4, "stablehlo": 1e-4, "weights": 0.1}
MIN_AGREEMENT = {"onnx": 0.9999, "torch": 0.9999, "stablehlo": 0.9999, "weights": 0.999}

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
      UserError: if there is no such run, a package is missing, or the two differ, in which case nothing is written.
    """
    backend, ending = FORMATS[format]
    if path.suffix != ending:
        raise UserError(f"--output={path} does not end in {ending or 'a folder name'}, as --format={format} does.")
    if dynamic_size and format != "onnx":
        raise UserError(f"--dynamic_size is for --format=onnx; {format} takes frames of the size of training.")
    # Other runtimes compute in float32, whatever the run did.
    model = JaxBackend(workdir, dtype=None if format == "stablehlo" else "float32")
    batches, source = _batches(model.card, data, sizes=2 if dynamic_size else 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        part = Path(folder) / path.name
        backend.write(part, model.model, model.card, **({"dynamic_size": True} if dynamic_size else {}))
        parities = compare(model, backend(part), batches)
        worst = max(parities, key=lambda p: p.max_error)
        least = min(parities, key=lambda p: p.agreement)
        if not (worst.max_error <= MAX_ERROR[format] and least.agreement >= MIN_AGREEMENT[format]):
            raise UserError(
                f"The {format} export differs from the model on {source}: {worst.output} by up to {worst.max_error:.1e}"
                f" ({MAX_ERROR[format]:.0e} allowed), classes of {least.output} agree in {least.agreement:.3%} "
                f"({MIN_AGREEMENT[format]:.2%} expected). Nothing was written."
            )
        _install(part, path)
    return parities, source


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
        shipped = shipped_examples().values()
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
    if part.is_dir():
        path.mkdir(exist_ok=True)
        for file in part.iterdir():
            os.replace(file, path / file.name)
    else:
        os.replace(part, path)
