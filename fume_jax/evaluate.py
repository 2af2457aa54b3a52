"""Scores the best checkpoint of a run again: `fume evaluate --workdir=runs/demo`.

It prints a table and writes `metrics.json`, a table of examples and pictures to the run folder, or to `--output`. With
`--predictions=DIR --data=DATASET` it scores what any program predicted, and needs no run.
"""

import functools
import os

from absl import flags

from fume_jax.runtime import cli, distributed
from fume_jax.runtime.errors import DONE, PARTLY_DONE, RUN_AGAIN, UserError
from fume_jax.runtime.preemption import Stopped, StopRequest

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to score.")
_PREDICTIONS = flags.DEFINE_string(
    "predictions", None, "Folder of masks and classes to score in place of a run, see docs/evaluation.md."
)
_SPLIT = flags.DEFINE_list(
    "split",
    None,
    "Splits to score, separated by commas: train, val, test. Default: val and test of a run, test of predictions.",
)
_DATA = flags.DEFINE_string("data", None, "Folder of the prepared dataset; that of the training if unset.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "Folder to write the scores to; that of the run or the predictions if unset."
)
_TTA = flags.DEFINE_bool("tta", False, "Average predictions over each frame and its mirror image.")
_PROTOCOL = flags.DEFINE_enum(
    "protocol",
    "present",
    ["present", "reference"],
    "present scores the gases that were recorded; reference scores CO2 alone, as the PyTorch original did.",
)
_HEIGHT = flags.DEFINE_integer("height", None, "Height to score predicted masks at; that of stored frames if unset.", 1)
_WIDTH = flags.DEFINE_integer("width", None, "Width to score predicted masks at; that of stored frames if unset.", 1)
_ALLOW_MISSING = flags.DEFINE_bool(
    "allow_missing",
    False,
    "A missing mask counts as all background, and a missing class as the one farthest from the true one.",
)
flags.register_validator("split", lambda names: names != [], "name at least one split")


def main() -> int:
    """Scores as the flags say; returns the exit code."""
    _check_flags()
    return _score_predictions() if _PREDICTIONS.value else _score_run()


def _check_flags():
    """Raises UserError unless either a run is to be scored or predictions, by flags that concern these."""
    if not (_WORKDIR.value or _PREDICTIONS.value):
        raise UserError("Expected --workdir=RUN or --predictions=DIR; --help lists the flags.")
    if _PREDICTIONS.value and not _DATA.value:
        raise UserError("Expected --data=DATASET, the prepared dataset that --predictions are of.")
    of_runs, of_predictions = (_WORKDIR, _TTA, _PROTOCOL), (_HEIGHT, _WIDTH, _ALLOW_MISSING)
    scored, others = ("predictions", of_runs) if _PREDICTIONS.value else ("a run", of_predictions)
    if given := [f"--{flag.name}" for flag in others if flag.value != flag.default]:
        raise UserError(f"{', '.join(given)} cannot be used to score {scored}; leave it out.")


def _score_predictions():
    from fume_jax.evaluation.prediction_report import score_predictions
    from fume_jax.runtime import files
    from fume_jax.runtime.byproducts import ByProducts
    from fume_jax.runtime.preflight import run_lock

    output, by_products = _OUTPUT.value or _PREDICTIONS.value, ByProducts()
    if not os.path.isdir(_PREDICTIONS.value):
        raise UserError(f"There is no folder {_PREDICTIONS.value}, given by --predictions.")
    files.check_folder(output, "Write the scores elsewhere: --output=DIR.")
    options = {"height": _HEIGHT.value, "width": _WIDTH.value, "allow_missing": _ALLOW_MISSING.value}
    lock = functools.partial(run_lock, output, doing="scoring into", flag="--output")
    with distributed.joined(output), lock():
        splits = _SPLIT.value or ["test"]
        score_predictions(_PREDICTIONS.value, _DATA.value, splits, output=output, by_products=by_products, **options)
    return PARTLY_DONE if by_products.failures else DONE


def _score_run():
    from fume_jax.runtime import files
    from fume_jax.runtime.byproducts import ByProducts
    from fume_jax.runtime.console import Console
    from fume_jax.runtime.preflight import run_lock
    from fume_jax.training.checkpoint import load_config
    from fume_jax.training.scoring import score_run

    config = load_config(_WORKDIR.value)
    if _DATA.value:
        config.data.path = _DATA.value
    output, by_products = _OUTPUT.value or _WORKDIR.value, ByProducts()
    files.check_folder(output, "Write the scores elsewhere: --output=DIR.")
    options = {"output": output, "tta": _TTA.value, "protocol": _PROTOCOL.value, "by_products": by_products}
    lock = functools.partial(run_lock, output, doing="training or scoring a run in", flag="--output")
    with distributed.joined(output) as agree, StopRequest(agree) as stop, lock():
        try:
            score_run(config, _WORKDIR.value, _SPLIT.value or ["val", "test"], stop=stop, **options)
        except Stopped:
            Console().print("stopped; the same command starts the evaluation again")
            return RUN_AGAIN
    return PARTLY_DONE if by_products.failures else DONE


if __name__ == "__main__":
    cli.run(main)
