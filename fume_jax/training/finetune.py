"""Starts a new run from the parameters of another one."""

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from fume_jax.learning.step import TrainState
from fume_jax.runtime.errors import UserError
from fume_jax.training.checkpoint import load_config
from fume_jax.training.setup import load_best_model

# The most names to print of each list.
SHOWN = 20


def init_from_run(workdir: str, state: TrainState, mesh: Mesh) -> tuple[TrainState, str]:
    """Copies the best parameters and batch statistics of a run into a fresh state, where names and shapes agree.

    `workdir` may hold another model; arrays of `state` that the run lacks stay as they are. Returns the state, and a
    summary of the arrays that were loaded and those that were not.

    Raises:
      UserError: if `workdir` is no run folder or has no checkpoint, or no array of it fits.
    """
    found, step = load_best_model(load_config(workdir), workdir, mesh)
    loaded, not_loaded, not_used = 0, [], []
    parts = {}
    for part, current in (("params", state.params), ("batch_stats", state.batch_stats)):
        new, old = (flatten_dict(tree) for tree in (current, found[part]))
        for path, variable in new.items():
            name = ".".join(map(str, path))
            if path not in old:
                not_loaded.append(f"{name}: not in that run")
            elif old[path].shape != variable.shape:
                not_loaded.append(f"{name}: {old[path].shape} in that run, {variable.shape} here")
            else:
                new[path] = old[path]
                loaded += 1
        not_used += [".".join(map(str, path)) for path in old if path not in new]
        parts[part] = unflatten_dict(new)
    if not loaded:
        raise UserError(f"--config.init_from={workdir}: no array of that run has the name and shape of one here.")
    if state.ema_params is not None:
        parts["ema_params"] = jax.tree.map(lambda x: x.copy(), parts["params"])
    lines = [f"{loaded} arrays loaded from step {step} of {workdir}"]
    for title, names in (("not loaded, fresh instead", not_loaded), ("not used of that run", not_used)):
        lines += [f"{len(names)} {title}:"] if names else []
        lines += [f"  {name}" for name in names[:SHOWN]]
        lines += [f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return state.replace(**parts), "\n".join(lines)
