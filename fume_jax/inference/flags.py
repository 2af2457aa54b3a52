"""Defines the flags of the commands that run a trained model."""

from pathlib import Path

from absl import flags

from fume_jax.data import flags as data_flags
from fume_jax.inference.formats import BACKENDS
from fume_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run whose best checkpoint predicts, instead of --model.")
_MODEL = flags.DEFINE_string(
    "model", None, "Exported file that predicts; without this and --workdir, the pretrained model."
)
_BACKEND = flags.DEFINE_enum(
    "backend", None, list(BACKENDS), "Software that runs the model; chosen by the file's suffix if unset."
)
flags.adopt_module_key_flags(data_flags)


def check() -> None:
    """Applies the limit of frames; UserError unless the flags name at most one model: a run folder or a file."""
    data_flags.apply()
    if _WORKDIR.value and _MODEL.value:
        raise UserError("Give --workdir, a run, or --model, an exported file, not both.")
    if _MODEL.value and Path(_MODEL.value).is_dir():
        raise UserError(f"--model={_MODEL.value} is a folder, not an exported file; --workdir takes a run.")
    if _WORKDIR.value and Path(_WORKDIR.value).is_file():
        raise UserError(f"--workdir={_WORKDIR.value} is a file, not a run folder; --model takes an exported file.")


def load_predictor():
    """Loads the `fume_jax.Predictor` that the flags name."""
    from fume_jax.inference.predictor import Predictor

    return Predictor.load(_MODEL.value or _WORKDIR.value, _BACKEND.value)
