"""Scores the best checkpoint of a run again: `python -m fume_jax.evaluate --workdir=runs/demo`."""

from absl import flags

from fume_jax import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_list("split", ["val", "test"], "Splits to score, separated by commas.")
_DATA = flags.DEFINE_string("data", None, "Folder of the prepared dataset, if it is not where the run trained.")
flags.mark_flag_as_required("workdir")
flags.register_validator("split", bool, "name at least one split")


def main() -> None:
    from fume_jax.checkpoint import load_config
    from fume_jax.evaluation import evaluate_run

    config = load_config(_WORKDIR.value)
    if _DATA.value:
        config.data.path = _DATA.value
    evaluate_run(config, _WORKDIR.value, _SPLIT.value)


if __name__ == "__main__":
    cli.run(main)
