"""Flags of the commands that run a trained model."""

from pathlib import Path

from absl import flags

from fume_jax.inference.formats import BACKENDS
from fume_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run whose best checkpoint predicts; see --model.")
_MODEL = flags.DEFINE_string("model", None, "Exported file instead of a run; without either, the model shipped.")
_BACKEND = flags.DEFINE_enum(
    "backend", None, list(BACKENDS), "What runs the model, if not what the file's ending says."
)


def check() -> None:
    """Raises UserError unless the flags name one model at most, of its kind."""
    if _WORKDIR.value and _MODEL.value:
        raise UserError("Give one of --workdir, a run, and --model, an exported file.")
    if _MODEL.value and Path(_MODEL.value).is_dir():
        raise UserError(f"--model={_MODEL.value} is a folder, not an exported file; --workdir takes a run.")
    if _WORKDIR.value and Path(_WORKDIR.value).is_file():
        raise UserError(
            f"--workdir={_WORKDIR.value} is a file, not the folder of a run; --model takes an exported file."
        )


def load_predictor():
    """The `fume_jax.Predictor` that the flags ask for."""
    from fume_jax.inference.predictor import Predictor

    return Predictor.load(_MODEL.value or _WORKDIR.value, _BACKEND.value)
