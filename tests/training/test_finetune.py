"""A new run starts from the arrays of another one that fit, and says which do not."""

import jax
import pytest
from flax.traverse_util import flatten_dict

from fume_jax.config import create_optimizer
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import create_mesh
from fume_jax.training.checkpoint import load_config
from fume_jax.training.finetune import init_from_run
from fume_jax.training.setup import create_state_fn, load_best_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("standard_promotion")]


def start_from(workdir, name):
    """The fresh state of a model, the same started from a run, and the summary."""
    config, mesh = load_config(workdir), create_mesh()
    with config.unlocked():
        config.model.name = name
    _, tx = create_optimizer(config, steps_per_epoch=6)
    state = create_state_fn(config, tx, mesh)()
    fresh = jax.device_get(state.params)
    return fresh, *init_from_run(str(workdir), state, mesh)


def test_all_of_the_same_model_is_loaded(trained):
    workdir, _ = trained
    _, state, summary = start_from(workdir, "fume")
    found, step = load_best_model(load_config(workdir), str(workdir), create_mesh())
    assert f"arrays loaded from step {step} of {workdir}" in summary and "not loaded" not in summary
    jax.tree.map(lambda a, b: None if (a == b).all() else pytest.fail("differs"), state.params, found["params"])


def test_names_and_shapes_that_agree_are_loaded_and_the_rest_is_listed(trained):
    fresh, state, summary = start_from(trained[0], "fume_concat")
    assert "not loaded, fresh instead:" in summary
    assert "cls_head.logits.kernel: (128, 3) in that run, (256, 3) here" in summary
    assert "fusion.merge.kernel: not in that run" in summary
    fresh, params = (flatten_dict(tree) for tree in (fresh, jax.device_get(state.params)))
    merge, fine = ("fusion", "merge", "kernel"), ("encoder", "fine", "kernel")
    assert (params[merge] == fresh[merge]).all()
    assert (params[fine] != fresh[fine]).any()


def test_a_folder_that_is_no_run_is_refused(trained):
    with pytest.raises(UserError, match="nowhere is not a run folder"):
        init_from_run("nowhere", None, create_mesh())
