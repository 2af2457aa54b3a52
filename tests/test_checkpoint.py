"""Which checkpoints are kept, and which run folders are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import demo
from fume_jax.checkpoint import Checkpoints, load_config, save_config, with_sharding
from fume_jax.errors import UserError
from fume_jax.sharding import batch_sharding, create_mesh, replicated
from fume_jax.train_step import TrainState, create_train_state


class Small(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(8, 4, rngs=rngs)
        self.mean = nnx.BatchStat(jnp.zeros(4))


def state_at(step) -> TrainState:
    state = create_train_state(Small(nnx.Rngs(step)), optax.adam(1e-3))
    return state.replace(step=jnp.int32(step))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_the_last_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="score")
    for step, score in [(10, 0.1), (20, 0.9), (30, 0.5), (40, float("nan")), (50, 0.7)]:
        checkpoints.save(state_at(step), {"score": score})
    checkpoints.close()
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["20", "50"]
    again = Checkpoints(tmp_path, metric="score")
    assert (again.latest_step, again.best_step) == (50, 20)


def test_what_is_restored_is_what_was_saved_on_any_sharding(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="score")
    checkpoints.save(state_at(3), {"score": 1.0})
    checkpoints.close()
    mesh = create_mesh()
    abstract = jax.eval_shape(lambda: state_at(0))
    again = Checkpoints(tmp_path, metric="score")
    state = again.restore(with_sharding(abstract, replicated(mesh)), 3)
    assert_equal(state, state_at(3))
    assert jax.tree.structure(state) == jax.tree.structure(state_at(3))
    assert len(state.params["linear"]["kernel"][...].sharding.device_set) == 8
    model = {"params": abstract.params, "batch_stats": abstract.batch_stats}
    assert_equal(again.restore_model(with_sharding(model, replicated(mesh)), 3)["params"], state.params)
    assert batch_sharding(mesh) != replicated(mesh)


def test_a_run_goes_on_under_its_own_config_only(tmp_path):
    config = demo.get_config()
    config.seed = 5
    save_config(config, tmp_path)
    config.seed = 0
    save_config(config, tmp_path)  # nothing is trained yet, so there is nothing to mix up
    assert load_config(tmp_path).to_json() == config.to_json()
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    config.log.every_steps = 7
    config.checkpoint.best_metric = "mean_iou"
    save_config(config, tmp_path)
    assert load_config(tmp_path).log.every_steps == 7
    config.train.batch_size = 4
    config.augment.flip.probability = 0.0
    with pytest.raises(UserError) as error:
        save_config(config, tmp_path)
    assert "augment.flip.probability: 0.5 there, 0.0 now" in str(error.value)
    assert "train.batch_size: 8 there, 4 now" in str(error.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"not a run folder: it has no config\.json"):
        load_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        load_config(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(UserError, match=r"checkpoints but no config\.json"):
        save_config(demo.get_config(), tmp_path)
