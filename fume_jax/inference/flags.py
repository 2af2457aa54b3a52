"""Defines the flags of the commands that run a trained model."""

import os
from pathlib import Path

from absl import flags

from fume_jax.data import flags as data_flags
from fume_jax.inference.formats import BACKENDS
from fume_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run whose best checkpoint predicts, instead of --model. Several, separated by commas, predict "
    "together, by the mean of their probabilities.",
)
_MODEL = flags.DEFINE_string(
    "model", None, "Exported file that predicts, or several; without this and --workdir, the pretrained model."
)
_BACKEND = flags.DEFINE_enum(
    "backend", None, list(BACKENDS), "Software that runs the model; chosen by the file's suffix if unset."
)
_PROVIDERS = flags.DEFINE_list(
    "providers", None, "What ONNX Runtime runs a file with, in order: some of CPU, CUDA, TensorRT, OpenVINO."
)
flags.adopt_module_key_flags(data_flags)


def check() -> None:
    """Applies the limit of frames; UserError unless the flags name at most one model: a run folder or a file."""
    data_flags.apply()
    if _WORKDIR.value and _MODEL.value:
        raise UserError("Give --workdir, a run, or --model, an exported file, not both.")
    for path in _paths(_MODEL.value):
        if path.is_dir():
            raise UserError(f"--model={path} is a folder, not an exported file; --workdir takes a run.")
    for path in _paths(_WORKDIR.value):
        if path.is_file():
            raise UserError(f"--workdir={path} is a file, not a run folder; --model takes an exported file.")


def load_predictor(*, tta: bool = False):
    """Loads the `fume_jax.Predictor` that the flags name; `tta` is as in `Predictor.load`."""
    from fume_jax.inference.backends import faster_export
    from fume_jax.inference.predictor import Predictor

    paths = _paths(_MODEL.value or _WORKDIR.value)
    if _WORKDIR.value and not (_BACKEND.value or _PROVIDERS.value):
        for i, path in enumerate(paths):
            faster, told = faster_export(path)
            paths[i] = faster or path
            print(told, end="\n" if told else "", flush=True)
    return Predictor.load(paths or None, _BACKEND.value, tta=tta, providers=_PROVIDERS.value)


def _paths(value: str | None) -> list[Path]:
    """Splits a flag at its commas, unless a file or folder has that name."""
    if not value or os.path.exists(value):
        return [Path(value)] if value else []
    return [Path(os.path.expanduser(path)) for path in value.split(",")]
