"""Scores the best checkpoint of a run."""

import os
from collections.abc import Sequence

import ml_collections

from fume_jax.config import data_options, eval_batch_shape, open_dataset, validate_config
from fume_jax.data.loader import Loader
from fume_jax.evaluation.report import write_report
from fume_jax.runtime import preflight
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import create_mesh
from fume_jax.training.checkpoint import Checkpoints, only_weights, trained_dataset, warn_of_other_dataset
from fume_jax.training.setup import load_best_model
from fume_jax.training.tensorboard import read_scalars


def score_run(
    config: ml_collections.ConfigDict,
    workdir: str,
    splits: Sequence[str] = ("val", "test"),
    *,
    checkpoints: Checkpoints | None = None,
    **options,
) -> dict[str, dict[str, float]]:
    """Loads the best checkpoint of a run and the dataset of its config, and writes the report on the splits.

    A warning says if the dataset is not that of the training. `checkpoints` are those of the run, if open already;
    `options` are `output`, `tta`, `protocol`, `stop` and `by_products` of `evaluation.report.write_report`, whose
    metrics it returns. It raises as that, and UserError if the run has no checkpoint, the dataset is missing, or
    exported weights would get other metrics than those of their run.
    """
    validate_config(config)
    output = options.get("output") or workdir
    if only_weights(workdir) and os.path.realpath(output) == os.path.realpath(workdir):
        raise UserError(f"{workdir} holds exported weights with the metrics of their run. Add --output=DIR.")
    preflight.check_batch_memory(**eval_batch_shape(config))
    mesh, console = create_mesh(), Console(quiet=config.log.quiet)
    model, step = load_best_model(config, workdir, mesh, checkpoints)
    dataset = open_dataset(config)
    warn_of_other_dataset(dataset, workdir, console)
    loader, curves = Loader(dataset, data_options(config), mesh, console), read_scalars(workdir, console.warn)
    if trained_dataset(workdir).get("digest") == dataset.digest:
        options["training_data"] = True
    return write_report(config, workdir, model, step, loader, splits, curves=curves, **options)
