"""Checkpoints of a run: the last one and the best, each with the metrics it scored."""

import json
import math
from pathlib import Path

import jax
import ml_collections
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from fume_jax.errors import UserError
from fume_jax.train_step import TrainState

# Sections of the config that may change between two starts of one run.
FREE_SECTIONS = ("log", "checkpoint")


class Checkpoints:
    """The folder `checkpoints/STEP/` of a run; saving goes on while training does."""

    def __init__(self, workdir: str | Path, *, metric: str, read_only: bool = False):
        """Opens the checkpoints of a run.

        Args:
          workdir: folder of the run.
          metric: the entry of the saved metrics that decides which checkpoint is best; larger is better.
          read_only: leave the folder as it is.
        """

        def score(metrics):
            value = metrics[metric]
            return -math.inf if math.isnan(value) else value

        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(1),
                checkpoint_managers.BestN(get_metric_fn=score, n=1, keep_checkpoints_without_metrics=False),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep, best_fn=score, best_mode="max", read_only=read_only, create=not read_only
        )
        self._manager = ocp.CheckpointManager((Path(workdir) / "checkpoints").absolute(), options=options)

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        return self._manager.best_step()

    def save(self, state: TrainState, metrics: dict[str, float]) -> None:
        """Saves the state under its step; returns before it is written."""
        model, optimizer = _parts(state)
        items = ocp.args.Composite(model=ocp.args.StandardSave(model), optimizer=ocp.args.StandardSave(optimizer))
        self._manager.save(int(state.step), args=items, metrics=metrics)

    def restore(self, abstract_state: TrainState, step: int) -> TrainState:
        """Restores everything, in the shapes and shardings of `abstract_state`."""
        model, optimizer = _parts(abstract_state)
        items = ocp.args.Composite(model=ocp.args.StandardRestore(model), optimizer=ocp.args.StandardRestore(optimizer))
        restored = self._manager.restore(step, args=items)
        return TrainState(**restored.model, **restored.optimizer)

    def restore_model(self, abstract_model: dict, step: int) -> dict:
        """Restores `params` and `batch_stats` alone, in the shapes and shardings of a dict of the two."""
        items = ocp.args.Composite(model=ocp.args.StandardRestore(abstract_model))
        return self._manager.restore(step, args=items).model

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()


def _parts(state):
    model = {"params": state.params, "batch_stats": state.batch_stats}
    return model, {"step": state.step, "opt_state": state.opt_state}


def with_sharding(tree, sharding):
    """Shapes and dtypes of a tree's arrays, to be restored with one sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def has_checkpoints(workdir: str | Path) -> bool:
    """Whether a folder holds a run that has saved something."""
    return any((Path(workdir) / "checkpoints").glob("[0-9]*"))


def save_config(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Writes `config.json`; if the folder has checkpoints, only after checking that they are of the same config.

    Raises:
      UserError: if `workdir` holds checkpoints of a config that differs in anything but logging and saving.
    """
    path = Path(workdir) / "config.json"
    new = json.loads(config.to_json())
    if has_checkpoints(workdir):
        if not path.exists():
            raise UserError(f"{workdir} holds checkpoints but no config.json; use another --workdir.")
        differences = list(_differences(_load(path), new))
        if differences:
            raise UserError(
                f"{workdir} holds a run of another config:\n"
                + "\n".join(f"  {key}: {old!r} there, {now!r} now" for key, old, now in differences)
                + "\nUse another --workdir, or the config of that run."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(new, indent=2) + "\n")


def load_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """The config of a run, locked.

    Raises:
      UserError: if `workdir` is no run folder.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(
            f"{workdir} is not a run folder: it has no config.json. Train one with python -m fume_jax.main."
        )
    return ml_collections.ConfigDict(_load(path)).lock()


def _load(path):
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def _differences(old, new, prefix=""):
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        if name in FREE_SECTIONS:
            continue
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{name}.")
        elif a != b:
            yield name, a, b
