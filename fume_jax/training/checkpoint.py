"""Checkpoints of a run: the last one, the best one, and those kept for good."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from fume_jax.config import upgrade_values
from fume_jax.learning.step import TrainState
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import replace_text
from fume_jax.runtime.mesh import assert_equal
from fume_jax.runtime.preflight import full_disk
from fume_jax.training import weights

# What may change between two starts of one run: nothing that its numbers depend on.
FREE_KEYS = (
    "log",
    "checkpoint.every_epochs",
    "checkpoint.keep_every_epochs",
    "data.num_threads",
    "data.num_workers",
    "data.prefetch",
    "data.timeout_seconds",
)


class Checkpoints:
    """The folder `checkpoints/STEP/` of a run, and `validation.json`, the scores of the steps that were evaluated.

    Saving goes on while training does. A step is saved before it is evaluated, so that an evaluation that is cut short
    loses nothing.
    """

    def __init__(self, workdir: str | Path, *, metric: str, keep_every_steps: int = 0, read_only: bool = False):
        """Opens the checkpoints of a run.

        Args:
          workdir: folder of the run.
          metric: the score that decides which checkpoint is best; larger is better, the earlier of equals.
          keep_every_steps: steps that are multiples of it are kept for good; 0 keeps none.
          read_only: leave the folder as it is.
        """
        self._workdir, self._metric, self._keep_every_steps = Path(workdir), metric, keep_every_steps
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Keep(self),
            read_only=read_only,
            create=not read_only,
            # What a killed process left half-written.
            cleanup_tmp_directories=not read_only,
        )
        self._manager = ocp.CheckpointManager((self._workdir / "checkpoints").absolute(), options=options)
        # Scores of steps after the last checkpoint are of steps that will be taken again.
        self._scores = {step: s for step, s in _read_scores(self._path).items() if step <= (self.latest_step or 0)}
        # What all processes do next follows from these.
        seen = json.dumps([sorted(self._manager.all_steps()), self._scores])
        assert_equal("checkpoints", seen, f"A disk lags: run the same command again. All see {workdir}.")

    @property
    def _path(self):
        return self._workdir / "validation.json"

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the best score; where none has any, the latest."""
        return self._best(self._manager.all_steps())

    def save(self, state: TrainState, progress: Mapping) -> None:
        """Saves the state and what the loop remembers under the state's step; returns before it is written.

        Raises:
          UserError: if the disk is full.
        """
        parts = _parts(state)
        digests = {name: _digest(part) for name, part in parts.items()} | {"progress": _text_digest(progress)}
        items = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
        items["loop"] = ocp.args.JsonSave({"progress": dict(progress), "digests": digests})
        with full_disk(self._workdir, "a checkpoint"):
            self._manager.save(int(state.step), args=ocp.args.Composite(**items))

    def record(self, step: int, scores: Mapping[str, float]) -> None:
        """Takes note of the scores of a step that was saved."""
        with full_disk(self._workdir, "a checkpoint"):
            self._manager.wait_until_finished()
        self._scores[step] = {name: None if math.isnan(value) else value for name, value in scores.items()}
        if jax.process_index() == 0:
            replace_text(self._path, json.dumps(self._scores, indent=1) + "\n")
        for other in set(self._manager.all_steps()) - self.kept(self._manager.all_steps()):
            self._manager.delete(other)

    def restore(self, abstract_state: TrainState, step: int) -> tuple[TrainState, dict]:
        """What was saved, in the shapes and shardings of `abstract_state`.

        Raises:
          UserError: if it is damaged or of another model.
        """
        restored = self._restore(step, _parts(abstract_state))
        parts = restored["model"] | restored["training"]  # whose params are those of the optimiser, if both have some
        if abstract_state.ema_params is not None:
            parts["ema_params"] = restored["model"]["params"]
        return TrainState(**parts), restored["progress"]

    def restore_model(self, abstract_model: dict, step: int) -> dict:
        """The `params` and `batch_stats` that evaluation uses, in the shapes and shardings of a dict of the two.

        Raises:
          UserError: as `restore`.
        """
        return self._restore(step, {"model": abstract_model})["model"]

    def kept(self, steps: Iterable[int]) -> set[int]:
        """Those of some steps that are not deleted: the last, the best, and those kept for good."""
        every = self._keep_every_steps
        kept = {step for step in steps if every and step and step % every == 0}
        return kept | {max(steps), self._best(steps)}

    def close(self) -> None:
        """Waits until everything is written."""
        with full_disk(self._workdir, "a checkpoint"):
            self._manager.close()

    def _restore(self, step, parts):
        items = {name: ocp.args.StandardRestore(part) for name, part in parts.items()}
        try:
            args = ocp.args.Composite(**items, loop=ocp.args.JsonRestore())
            restored = dict(self._manager.restore(step, args=args).items())
            digests, restored["progress"] = restored["loop"]["digests"], restored["loop"]["progress"]
            found = {name: _digest(restored[name]) for name in parts} | {"progress": _text_digest(restored["progress"])}
            changed = [name for name in found if found[name] != digests[name]]
        except (MemoryError, PermissionError, TimeoutError, jax.errors.JaxRuntimeError):
            raise  # which say nothing of the checkpoint
        except Exception as error:  # of many types, by what is damaged and how
            raise UserError(self._damaged(step, error)) from error
        if changed:
            what = f"{' and '.join(changed)} differ from what was saved"
            raise UserError(self._damaged(step, what))
        return restored

    def _damaged(self, step, why):
        others = [str(other) for other in self._manager.all_steps() if other != step]
        folder = self._workdir / "checkpoints" / str(step)
        remedy = (
            f"Move that folder away to use step {' or '.join(others)}." if others else "There is no other checkpoint."
        )
        first_line = str(why).strip().partition("\n")[0]
        return f"The checkpoint {folder} is damaged, or of another model or version: {first_line}\n{remedy}"

    def _best(self, steps):
        values = {step: self._scores.get(step, {}).get(self._metric) for step in sorted(steps)}
        scored = {step: value for step, value in values.items() if value is not None}
        return max(scored, key=scored.get, default=max(steps, default=None))


class _Keep(checkpoint_managers.PreservationPolicy):
    """Keeps the last, the best, and every so many steps."""

    def __init__(self, checkpoints):
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints, *, context):
        kept = self._checkpoints.kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]


def _parts(state):
    """What is saved together: what evaluation needs alone, and what training needs besides."""
    training = {"step": state.step, "opt_state": state.opt_state}
    if state.ema_params is not None:
        training["params"] = state.params
    return {"model": state.model, "training": training}


def _digest(tree):
    """Checksum of the numbers of a tree; the files would give other numbers back without a word if a byte changed."""
    checksum = 0
    for leaf in jax.tree.leaves(jax.device_get(tree)):
        checksum = zlib.crc32(np.ascontiguousarray(leaf), checksum)
    return checksum


def _text_digest(value):
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _read_scores(path):
    """Scores by step."""
    return {int(step): scores for step, scores in load_json(path).items()} if path.exists() else {}


def with_sharding(tree, sharding):
    """Shapes and dtypes of a tree's arrays, to be restored with one sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def has_checkpoints(workdir: str | Path) -> bool:
    """Whether a folder holds a run that has saved something."""
    return any(path.name.isdigit() for path in (Path(workdir) / "checkpoints").glob("*"))


def only_weights(folder: str | Path) -> bool:
    """Whether a folder holds weights and no run that could go on."""
    return (Path(folder) / weights.FILE).is_file() and not has_checkpoints(folder)


def save_config(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Writes `config.json`; if the folder has checkpoints, only after checking that they are of the same config.

    On the first process only; elsewhere it does nothing.

    Raises:
      UserError: if `workdir` holds checkpoints of a config that differs in anything but `FREE_KEYS`, or weights alone.
    """
    if jax.process_index() != 0:
        return
    path = Path(workdir) / "config.json"
    new = json.loads(config.to_json())
    if only_weights(workdir):
        raise UserError(
            f"{workdir} holds the weights of a model. To train on from them, use another --workdir and "
            f"--config.init_from={workdir}."
        )
    if has_checkpoints(workdir):
        if not path.exists():
            raise UserError(f"{workdir} holds checkpoints but no config.json; use another --workdir.")
        differences = list(_differences(upgrade_values(load_json(path)), new))
        if differences:
            raise UserError(
                f"{workdir} holds a run of another config:\n"
                + "\n".join(f"  {key}: {old!r} there, {now!r} now" for key, old, now in differences)
                + "\nUse another --workdir, or the config of that run."
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(new, indent=2) + "\n")


def load_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """Loads the config of a run, locked, with the keys of this version.

    Raises:
      UserError: if `workdir` is no run folder.
    """
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} is not a run folder: it has no config.json. Train one with fume train.")
    return ml_collections.ConfigDict(upgrade_values(load_json(path))).lock()


def load_json(path: Path) -> dict:
    """What a file of a run holds; UserError if it is damaged."""
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def _differences(old, new, prefix=""):
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}{key}"
        if name in FREE_KEYS:
            continue
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differences(a, b, f"{name}.")
        elif a != b:
            yield name, a, b
