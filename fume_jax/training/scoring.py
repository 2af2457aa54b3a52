"""Scores the best checkpoint of a run."""

from collections.abc import Sequence

import ml_collections

from fume_jax.config import data_options, validate_config
from fume_jax.data.dataset import Dataset
from fume_jax.data.loader import Loader
from fume_jax.evaluation.report import write_report
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import create_mesh
from fume_jax.runtime.preemption import StopRequest
from fume_jax.training.checkpoint import Checkpoints, only_weights
from fume_jax.training.setup import load_best_model
from fume_jax.training.tensorboard import read_scalars


def score_run(
    config: ml_collections.ConfigDict,
    workdir: str,
    splits: Sequence[str] = ("val", "test"),
    *,
    tta: bool = False,
    protocol: str = "present",
    checkpoints: Checkpoints | None = None,
    stop: StopRequest | None = None,
) -> dict[str, dict[str, float]]:
    """Opens the best checkpoint of a run and the dataset of its config, and writes the report on the splits.

    `checkpoints` are those of the run, if they are open already. Other arguments, and what is returned, are those of
    `evaluation.report.write_report`.

    Raises:
      UserError: if the run has no checkpoint or weights alone, the dataset is gone or lacks a split, or the protocol
        does not fit.
      Stopped: if `stop` is requested meanwhile.
    """
    validate_config(config)
    if only_weights(workdir):
        raise UserError(
            f"{workdir} holds weights and the metrics of their run, which stay as they are. Evaluate the run itself."
        )
    mesh = create_mesh()
    model, step = load_best_model(config, workdir, mesh, checkpoints)
    loader = Loader(Dataset(config.data.path), data_options(config), mesh, Console(quiet=config.log.quiet))
    options = {"curves": read_scalars(workdir), "tta": tta, "protocol": protocol, "stop": stop}
    return write_report(config, workdir, model, step, loader, splits, **options)
