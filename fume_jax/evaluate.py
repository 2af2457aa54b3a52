"""Scores the best checkpoint of a run again: `fume evaluate --workdir=runs/demo`.

It prints a table and writes `metrics.json`, a table of examples and pictures to the run folder, or to `--output`.
"""

import functools

from absl import flags

from fume_jax.runtime import cli, distributed
from fume_jax.runtime.errors import DONE, PARTLY_DONE, RUN_AGAIN
from fume_jax.runtime.preemption import Stopped, StopRequest

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to score.", required=True)
_SPLIT = flags.DEFINE_list("split", ["val", "test"], "Splits to score, separated by commas: train, val, test.")
_DATA = flags.DEFINE_string("data", None, "Folder of the prepared dataset; that of the training if unset.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the scores to; the run folder if unset.")
_TTA = flags.DEFINE_bool("tta", False, "Average predictions over each frame and its mirror image.")
_PROTOCOL = flags.DEFINE_enum(
    "protocol",
    "present",
    ["present", "reference"],
    "present scores the gases that were recorded; reference scores CO2 alone, as the PyTorch original did.",
)
flags.register_validator("split", bool, "name at least one split")


def main() -> int:
    """Scores as the flags say; returns the exit code."""
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
            score_run(config, _WORKDIR.value, _SPLIT.value, stop=stop, **options)
        except Stopped:
            Console().print("stopped; the same command starts the evaluation again")
            return RUN_AGAIN
    return PARTLY_DONE if by_products.failures else DONE


if __name__ == "__main__":
    cli.run(main)
