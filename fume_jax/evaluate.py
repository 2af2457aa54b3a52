"""Scores the best checkpoint of a run again: `python -m fume_jax.evaluate --workdir=runs/demo`."""

from absl import flags

from fume_jax import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_list("split", ["val", "test"], "Splits to score, separated by commas.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    from fume_jax.checkpoint import load_config
    from fume_jax.evaluation import evaluate_run

    evaluate_run(load_config(_WORKDIR.value), _WORKDIR.value, _SPLIT.value)


if __name__ == "__main__":
    cli.run(main)
