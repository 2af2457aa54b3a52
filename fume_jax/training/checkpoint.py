"""Saves and restores the checkpoints of a run: the latest, the best, and those kept permanently."""

import json
import math
import os
import re
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict
from orbax.checkpoint import checkpoint_managers

from fume_jax.config import upgrade_values
from fume_jax.data.dataset import Dataset
from fume_jax.learning.step import TrainState
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError, out_of_memory
from fume_jax.runtime.files import full_disk, read_json, replace_text
from fume_jax.runtime.mesh import assert_equal
from fume_jax.schema import SPLITS
from fume_jax.training import weights

# Keys, or their beginnings, that may change when a run resumes: its numbers do not depend on them.
FREE_KEYS = (
    "log.",
    "checkpoint.every_epochs",
    "checkpoint.keep_every_epochs",
    "data.num_threads",
    "data.num_workers",
    "data.prefetch",
    "data.timeout_seconds",
)

# The dataset of a run.
DATASET = "dataset.json"
# Copy of `validation.json` in each checkpoint that was evaluated.
SCORES = "scores.json"


class Checkpoints:
    """Manages `checkpoints/STEP/` of a run, and `validation.json`, the scores of the evaluated steps.

    Saving runs in the background. A step is saved before it is evaluated, so that an interrupted evaluation loses
    nothing. Then its checkpoint gets a copy of the scores so far, which decide which checkpoint is the best one.
    """

    def __init__(self, workdir: str | Path, *, metric: str, keep_every_steps: int = 0, read_only: bool = False):
        """Opens the checkpoints of a run; `read_only` does not change its folder.

        The best checkpoint is the earliest with the largest score `metric`. Multiples of `keep_every_steps` are kept
        permanently; 0 keeps none.
        """
        self._workdir, self._metric, self._keep_every_steps = Path(workdir), metric, keep_every_steps
        self._path, folder = self._workdir / "validation.json", (self._workdir / "checkpoints").absolute()
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        # Temporary folders are those of a killed process.
        access = {"read_only": read_only, "create": not read_only, "cleanup_tmp_directories": not read_only}
        options = ocp.CheckpointManagerOptions(preservation_policy=_Kept(self), **access)
        self._manager = ocp.CheckpointManager(_plain_path(folder, self), options=options)
        # Steps after the latest checkpoint will be taken and scored again.
        latest = self.latest_step or 0
        self._scores = {step: scores for step, scores in self._read_scores().items() if step <= latest}
        # All processes have to continue from the same state.
        found = json.dumps([sorted(self._manager.all_steps()), self._scores])
        assert_equal("checkpoints", found, f"A disk lags: run the same command again. All see {workdir}.")

    def _read_scores(self):
        """Returns the scores by step: of `validation.json`, corrected by the copies in the checkpoints."""
        scores, fault = {}, None
        try:
            scores = {int(step): dict(values) for step, values in read_json(self._path).items()}
        except FileNotFoundError:
            fault = f"{self._path} is missing"
        except (UserError, TypeError, ValueError) as error:
            fault = str(error) if isinstance(error, UserError) else f"{self._path} is damaged: {error}"
        copies = {}
        for step in sorted(self._manager.all_steps()):
            copies |= _read_copy(self._copy(step))
        if not copies:  # of a new run, or one of an earlier version
            if fault and self._path.exists():
                raise UserError(f"{fault} Move it away: the latest checkpoint then counts as the best one.")
            return scores
        if fault or any(scores.get(step, values) != values for step, values in copies.items()):
            fault = fault or f"{self._path} was changed"
            Console().warn(f"{fault}; the scores are those that the checkpoints hold")
        return scores | copies

    def _copy(self, step):
        return self._workdir / "checkpoints" / str(step) / SCORES

    @property
    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Returns the step with the best score; the latest if none has a score."""
        return self._best(self._manager.all_steps())

    def has_scores(self, step: int) -> bool:
        """Returns whether a step was evaluated."""
        return step in self._scores

    def save(self, state: TrainState, progress: Mapping) -> None:
        """Starts to save the state and the loop state under the state's step; UserError if the disk is full."""
        parts = _parts(state)
        items = {name: ocp.args.StandardSave(part) for name, part in parts.items()}
        items["loop"] = ocp.args.JsonSave({"progress": dict(progress), "digests": _digests(parts, progress)})
        with full_disk(self._workdir, "a checkpoint"):
            self._manager.save(int(state.step), args=ocp.args.Composite(**items))

    def record(self, step: int, scores: Mapping[str, float]) -> None:
        """Records the scores of a saved step, and deletes checkpoints that are no longer kept."""
        with full_disk(self._workdir, "a checkpoint"):
            self._manager.wait_until_finished()
        self._scores[step] = {name: None if math.isnan(value) else value for name, value in scores.items()}
        if jax.process_index() == 0:
            with full_disk(self._workdir, "the scores of an evaluation"):
                text = json.dumps({"scores": self._scores, "digest": _digest(self._scores)})
                replace_text(self._copy(step), text + "\n")
                replace_text(self._path, json.dumps(self._scores, indent=1) + "\n")
        for other in set(self._manager.all_steps()) - self.kept(self._manager.all_steps()):
            self._manager.delete(other)

    def restore(self, abstract_state: TrainState, step: int) -> tuple[TrainState, dict]:
        """Restores state and loop state, as `abstract_state` is sharded; UserError if damaged or of another model."""
        restored = self._restore(step, _parts(abstract_state))
        parts = restored["model"] | restored["training"]  # params of `training`, if any, are those of the optimiser
        if abstract_state.ema_params is not None:
            parts["ema_params"] = restored["model"]["params"]
        return TrainState(**parts), restored["progress"]

    def restore_model(self, abstract_model: dict, step: int) -> dict:
        """Restores `params` and `batch_stats` of evaluation, as `abstract_model` is sharded; raises as `restore`."""
        return self._restore(step, {"model": abstract_model})["model"]

    def kept(self, steps: Iterable[int]) -> set[int]:
        """Returns the steps to keep: the latest, the best, and those kept permanently."""
        every = self._keep_every_steps
        kept = {step for step in steps if every and step and step % every == 0}
        return kept | {max(steps), self._best(steps)}

    def close(self) -> None:
        """Waits until all checkpoints are written."""
        with full_disk(self._workdir, "a checkpoint"):
            self._manager.close()

    def _restore(self, step, parts):
        items = {name: ocp.args.StandardRestore(part) for name, part in parts.items()}
        try:
            args = ocp.args.Composite(**items, loop=ocp.args.JsonRestore())
            restored = dict(self._manager.restore(step, args=args).items())
            digests, restored["progress"] = restored["loop"]["digests"], restored["loop"]["progress"]
            found = _digests({name: restored[name] for name in parts}, restored["progress"])
            changed = [name for name in found if found[name] != digests[name]]
        except (PermissionError, TimeoutError, jax.errors.JaxRuntimeError):
            raise  # these errors do not concern the checkpoint
        except Exception as error:  # the type depends on the damage
            if out_of_memory(error):
                raise
            raise UserError(self._damaged(step, error)) from error
        if changed:
            raise UserError(self._damaged(step, f"{' and '.join(changed)} differ from what was saved"))
        return restored

    def _damaged(self, step, why):
        others = " or ".join(str(other) for other in self._manager.all_steps() if other != step)
        folder = self._workdir / "checkpoints" / str(step)
        first_line = str(why).strip().partition("\n")[0]
        remedy = f"Move that folder away to use step {others}." if others else "There is no other checkpoint."
        return f"The checkpoint {folder} is damaged, or of another model or version: {first_line}\n{remedy}"

    def _best(self, steps):
        values = {step: self._scores.get(step, {}).get(self._metric) for step in sorted(steps)}
        scored = {step: value for step, value in values.items() if value is not None}
        return max(scored, key=scored.get, default=max(steps, default=None))


def _plain_path(folder, owner):
    """Returns a path of a folder that Orbax takes as it is: its own, or that of a link to it, which `owner` keeps.

    Orbax takes brackets for a pattern, and its libraries take a backslash for a slash and nothing but UTF-8.
    """
    if _is_plain(folder) or not folder.is_dir():
        return folder
    links = tempfile.mkdtemp(prefix="fume_jax-")
    weakref.finalize(owner, shutil.rmtree, links, ignore_errors=True)
    link = Path(links) / "checkpoints"
    if not _is_plain(link):
        raise UserError(f"Checkpoints cannot be kept in {folder}, as its path holds * ? [ or \\, or is not UTF-8.")
    link.symlink_to(folder)
    return link


def _is_plain(path):
    try:
        return not re.search(r"[*?\[\\]", str(path)) and bool(os.fsencode(path).decode())
    except UnicodeDecodeError:
        return False


class _Kept(checkpoint_managers.PreservationPolicy):
    """Tells Orbax to keep the steps of `Checkpoints.kept`."""

    def __init__(self, checkpoints):
        self._checkpoints = checkpoints

    def should_preserve(self, checkpoints, *, context):
        kept = self._checkpoints.kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]


def _read_copy(path):
    """Returns the scores by step that a checkpoint holds; none if it was not evaluated, or they are damaged."""
    try:
        found = read_json(path)
        scores = {int(step): dict(values) for step, values in found["scores"].items()}
        return scores if found["digest"] == _digest(scores) else {}
    except (UserError, OSError, AttributeError, KeyError, TypeError, ValueError):
        return {}


def _digest(values):
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _parts(state):
    """Splits a state into the items of a checkpoint: what evaluation needs, and what only training needs."""
    training = {"step": state.step, "opt_state": state.opt_state}
    if state.ema_params is not None:
        training["params"] = state.params
    return {"model": state.model, "training": training}


def _digests(parts, progress):
    """Computes checksums of the parts of a checkpoint; the files alone would not reveal a changed byte."""
    digests = {"progress": _digest(progress)}
    for name, tree in parts.items():
        digests[name] = 0
        for leaf in jax.tree.leaves(jax.device_get(tree)):
            digests[name] = zlib.crc32(np.ascontiguousarray(leaf), digests[name])
    return digests


def with_sharding(tree, sharding):
    """Returns shapes and dtypes of a tree's arrays, to be restored with one sharding."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def has_checkpoints(workdir: str | Path) -> bool:
    """Returns whether a folder holds a run with a checkpoint."""
    return any(path.name.isdigit() for path in (Path(workdir) / "checkpoints").glob("*"))


def only_weights(folder: str | Path) -> bool:
    """Returns whether a folder holds weights and no run that could resume."""
    return (Path(folder) / weights.FILE).is_file() and not has_checkpoints(folder)


def save_config(config: ml_collections.ConfigDict, workdir: str | Path) -> None:
    """Writes `config.json`, on the first process; UserError if the folder has weights or another config.

    A config is another one if it differs in keys outside `FREE_KEYS`.
    """
    if jax.process_index() != 0:
        return
    path = Path(workdir) / "config.json"
    new = json.loads(config.to_json())
    if only_weights(workdir):
        start = f"use another --workdir and --config.init_from={workdir}"
        raise UserError(f"{workdir} holds the weights of a model. To start a training from them, {start}.")
    if has_checkpoints(workdir):
        if not path.exists():
            raise UserError(f"{workdir} holds checkpoints but no config.json; use another --workdir.")
        old, now = (flatten_dict(values, sep=".") for values in (upgrade_values(read_json(path)), new))
        changed = [key for key in sorted(old | now) if old.get(key) != now.get(key) and not key.startswith(FREE_KEYS)]
        if changed:
            lines = "\n".join(f"  {key}: {old.get(key)!r} there, {now.get(key)!r} now" for key in changed)
            remedy = f"Use the config of that run, or another --workdir, with {_start_from(workdir)}."
            raise UserError(f"{workdir} holds a run of another config:\n{lines}\n{remedy}")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(new, indent=2) + "\n")


def _start_from(workdir):
    return f"--config.init_from={workdir} to start from its weights"


def save_dataset(dataset: Dataset, workdir: str | Path) -> None:
    """Writes `dataset.json`, on the first process; UserError if the folder holds a run of another dataset.

    A run of an earlier version has no such file and gets it now.
    """
    if jax.process_index() != 0:
        return
    path, now = Path(workdir) / DATASET, _describe(dataset)
    if has_checkpoints(workdir) and (old := trained_dataset(workdir)) and old["digest"] != now["digest"]:
        lines = "\n".join(f"  {where}: {_in_words(values)}" for where, values in (("there", old), ("now", now)))
        remedy = f"Use the dataset of that run, or another --workdir, with {_start_from(workdir)}."
        raise UserError(f"{workdir} holds a run that was trained on another dataset:\n{lines}\n{remedy}")
    replace_text(path, json.dumps(now, indent=1) + "\n")


def warn_of_other_dataset(dataset: Dataset, workdir: str | Path, console: Console) -> None:
    """Warns if a run was trained on another dataset than the one it is scored on."""
    old, now = trained_dataset(workdir), _describe(dataset)
    if old and old["digest"] != now["digest"]:
        console.warn(f"{workdir} was trained on {_in_words(old)} and is scored on {_in_words(now)}")


def trained_dataset(workdir: str | Path) -> dict:
    """Returns `name`, `digest` and `pairs` by split of the dataset of a run; nothing for one of an earlier version."""
    path = Path(workdir) / DATASET
    found = read_json(path) if path.exists() else {}
    if found and not {"name", "digest", "pairs"} <= found.keys():
        raise UserError(f"{path} is damaged: it lacks the name, the digest or the pairs of the dataset.")
    return found


def _describe(dataset):
    pairs = {split: len(dataset.split(split)) for split in SPLITS}
    return {"name": dataset.name, "digest": dataset.digest, "pairs": pairs}


def _in_words(described):
    pairs = ", ".join(f"{count:,} {split}" for split, count in dict(described["pairs"]).items())
    return f"{described['name']} ({pairs} pairs, digest {described['digest'][:12]})"


def load_config(workdir: str | Path) -> ml_collections.ConfigDict:
    """Loads the config of a run, locked, with the keys of this version; UserError if `workdir` is no run folder."""
    path = Path(workdir) / "config.json"
    if not path.exists():
        raise UserError(f"{workdir} is not a run folder: it has no config.json. Train one with fume train.")
    return ml_collections.ConfigDict(upgrade_values(read_json(path))).lock()
