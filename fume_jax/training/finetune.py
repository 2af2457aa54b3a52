"""Fine-tuning: a new run that starts from the parameters of another."""

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from fume_jax.learning.step import TrainState
from fume_jax.runtime.errors import UserError
from fume_jax.training.checkpoint import load_config
from fume_jax.training.setup import load_best_model

# Names of each list that are shown.
SHOWN = 20


def init_from_run(workdir: str, state: TrainState, mesh: Mesh) -> tuple[TrainState, str]:
    """Puts the best parameters and batch statistics of a run into a fresh state, wherever name and shape agree.

    Args:
      workdir: folder of the run, of this model or of another one.
      state: before the first step; what it has and the run has not stays as it is.
      mesh: of the state.

    Returns:
      The state, and in words what was loaded and what not.

    Raises:
      UserError: if there is no such run, it has no checkpoint, or nothing of it fits.
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
        raise UserError(f"--config.init_from={workdir}: nothing of that run has the name and shape of anything here.")
    if state.ema_params is not None:
        parts["ema_params"] = jax.tree.map(lambda x: x.copy(), parts["params"])
    lines = [f"{loaded} arrays loaded from step {step} of {workdir}"]
    lines += _listed("not loaded, fresh instead", not_loaded) + _listed("not used of that run", not_used)
    return state.replace(**parts), "\n".join(lines)


def _listed(title, names):
    shown = [f"  {name}" for name in names[:SHOWN]]
    more = [f"  and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return [f"{len(names)} {title}:", *shown, *more] if names else []
