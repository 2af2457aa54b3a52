"""Which checkpoints are kept, and which run folders are refused."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import demo
from fume_jax.learning.step import TrainState, create_train_state
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.mesh import create_mesh, replicated
from fume_jax.training.checkpoint import (
    Checkpoints,
    load_config,
    save_config,
    save_dataset,
    warn_of_other_dataset,
    with_sharding,
)


class Small(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(8, 4, rngs=rngs)
        self.mean = nnx.BatchStat(jnp.zeros(4))


def state_at(step, ema=False) -> TrainState:
    state = create_train_state(Small(nnx.Rngs(step)), optax.adam(1e-3), ema=ema)
    if ema:
        state = state.replace(ema_params=jax.tree.map(lambda x: x + 1, state.params))
    return state.replace(step=jnp.int32(step))


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def save_all(checkpoints, scores, ema=False):
    """Saves and scores steps as training does; None is a step that is not evaluated."""
    for step, score in scores.items():
        checkpoints.save(state_at(step, ema), {"since_log": [step]})
        if score is not None:
            checkpoints.record(step, {"score": score})


def folders(workdir):
    return {int(path.name) for path in (workdir / "checkpoints").iterdir()}


SCORES = {10: 0.1, 15: None, 20: 0.9, 25: None, 30: 0.5, 40: float("nan"), 50: 0.9}


def test_the_last_the_best_and_those_for_good_are_kept(tmp_path):
    for name, every, expected in (("none", 0, {20, 50}), ("some", 15, {15, 20, 30, 50})):
        checkpoints = Checkpoints(tmp_path / name, metric="score", keep_every_steps=every)
        save_all(checkpoints, SCORES)
        checkpoints.close()
        assert folders(tmp_path / name) == expected
        again = Checkpoints(tmp_path / name, metric="score")
        assert (again.latest_step, again.best_step) == (50, 20)
        assert json.loads((tmp_path / name / "validation.json").read_text())["40"] == {"score": None}


def test_a_step_counts_as_best_only_once_it_was_evaluated(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="score")
    save_all(checkpoints, {10: 0.1, 20: 0.9, 30: None})
    checkpoints.close()
    again = Checkpoints(tmp_path, metric="score")
    assert (again.latest_step, again.best_step) == (30, 20)
    again.record(30, {"score": 1.0})
    again.close()
    assert (again.best_step, folders(tmp_path)) == (30, {30})


def test_scores_of_steps_that_will_be_taken_again_are_forgotten(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="score", keep_every_steps=10)
    save_all(checkpoints, {10: 0.1, 20: 0.9})
    checkpoints.close()
    shutil.rmtree(tmp_path / "checkpoints" / "20")
    again = Checkpoints(tmp_path, metric="score")
    assert again.best_step == 10
    save_all(again, {20: 0.05})
    again.close()
    assert Checkpoints(tmp_path, metric="score").best_step == 10


NAMES = ["campaign [2024]", "a*b", "a?b", "a\\b", "{a} 50% #: ~", "a\nb", os.fsdecode(b"pr\xe9"), "[!a]"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_checkpoints_are_saved_and_restored_whatever_the_path_holds(tmp_path, name):
    others = tmp_path / "axb" / "run"  # which a*b and a?b match too
    for workdir, score in ((others, 9.0), (tmp_path / name / "run", 1.0)):
        checkpoints = Checkpoints(workdir, metric="score")
        save_all(checkpoints, {3: score, 7: 0.5})
        checkpoints.close()
    assert folders(tmp_path / name / "run") == {3, 7}
    again = Checkpoints(tmp_path / name / "run", metric="score", read_only=True)
    abstract = with_sharding(jax.eval_shape(lambda: state_at(0)), replicated(create_mesh()))
    assert (again.latest_step, again.best_step) == (7, 3)
    assert_equal(again.restore(abstract, 3)[0], state_at(3))


@pytest.mark.parametrize("edit", [None, "{", "[]", '{"3": 4}', '{"3": {"score": 0.0}, "7": {"score": 0.5}}'])
def test_scores_that_were_lost_or_edited_are_those_of_the_checkpoints(tmp_path, edit, capsys):
    checkpoints = Checkpoints(tmp_path, metric="score")
    save_all(checkpoints, {3: 1.0, 7: 0.5})
    checkpoints.close()
    path = tmp_path / "validation.json"
    whole = json.loads(path.read_text())
    path.unlink() if edit is None else path.write_text(edit)
    again = Checkpoints(tmp_path, metric="score")
    assert "validation.json" in capsys.readouterr().out
    assert again.best_step == 3
    save_all(again, {9: 0.7})
    again.close()
    assert folders(tmp_path) == {3, 9}
    assert json.loads(path.read_text()) == whole | {"9": {"score": 0.7}}
    assert capsys.readouterr().out == ""


def test_a_run_whose_checkpoints_hold_no_scores_goes_by_its_file(tmp_path, capsys):
    checkpoints = Checkpoints(tmp_path, metric="score")
    save_all(checkpoints, {3: 1.0, 7: 0.5})
    checkpoints.close()
    for path in tmp_path.rglob("scores.json"):
        path.unlink()
    assert Checkpoints(tmp_path, metric="score", read_only=True).best_step == 3
    assert capsys.readouterr().out == ""
    (tmp_path / "validation.json").write_text("[]")
    with pytest.raises(UserError, match=r"validation\.json is damaged.* Move it away"):
        Checkpoints(tmp_path, metric="score", read_only=True)


@pytest.mark.parametrize("ema", [False, True])
def test_what_is_restored_is_what_was_saved_on_any_sharding(tmp_path, ema):
    checkpoints = Checkpoints(tmp_path, metric="score")
    save_all(checkpoints, {3: 1.0}, ema)
    checkpoints.close()
    mesh = create_mesh()
    abstract = jax.eval_shape(lambda: state_at(0, ema))
    again = Checkpoints(tmp_path, metric="score")
    state, progress = again.restore(with_sharding(abstract, replicated(mesh)), 3)
    assert progress == {"since_log": [3]}
    assert_equal(state, state_at(3, ema))
    assert jax.tree.structure(state) == jax.tree.structure(state_at(3, ema))
    assert len(state.params["linear"]["kernel"][...].sharding.device_set) == 8
    restored = again.restore_model(with_sharding(abstract.model, replicated(mesh)), 3)
    assert_equal(restored["params"], state_at(3, ema).model["params"])
    assert_equal(restored["batch_stats"], state.batch_stats)


def harm(path, how):
    """Damages a file as a bad disk or a copy cut short does."""
    data = path.read_bytes()
    if how == "flipped":
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    elif how == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flipped", "cut", "removed"])
def test_damage_anywhere_is_refused_or_does_no_harm(tmp_path, how):
    checkpoints = Checkpoints(tmp_path / "run", metric="score", keep_every_steps=1)
    save_all(checkpoints, {3: 1.0, 7: 0.5})
    checkpoints.close()
    abstract = with_sharding(jax.eval_shape(lambda: state_at(0)), replicated(create_mesh()))
    files = [
        p.relative_to(tmp_path / "run") for p in (tmp_path / "run" / "checkpoints" / "7").rglob("*") if p.is_file()
    ]
    refused = 0
    for file in files:
        shutil.rmtree(tmp_path / "harmed", ignore_errors=True)
        shutil.copytree(tmp_path / "run", tmp_path / "harmed")
        harm(tmp_path / "harmed" / file, how)
        try:
            state, progress = Checkpoints(tmp_path / "harmed", metric="score", read_only=True).restore(abstract, 7)
        except UserError as error:
            refused += 1
            assert "checkpoints/7 is damaged" in str(error)
            assert "Move that folder away to use step 3" in str(error)
        else:
            assert_equal(state, state_at(7))
            assert progress == {"since_log": [7]}
    assert refused >= 5, files


def test_a_number_that_changed_without_a_trace_in_the_format_is_refused(tmp_path):
    def state():
        return create_train_state(nnx.Linear(64, 64, rngs=nnx.Rngs(0)), optax.adam(1e-3))

    checkpoints = Checkpoints(tmp_path, metric="score")
    checkpoints.save(state(), {})
    checkpoints.close()
    abstract = with_sharding(jax.eval_shape(state), replicated(create_mesh()))
    # The numbers themselves are in the largest file.
    path = max((tmp_path / "checkpoints" / "0" / "model").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="damaged, or of another model or version: model differ"):
        Checkpoints(tmp_path, metric="score", read_only=True).restore(abstract, 0)


def test_another_memory_of_the_loop_than_was_saved_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="score")
    save_all(checkpoints, {3: 1.0})
    checkpoints.close()
    path = tmp_path / "checkpoints" / "3" / "loop" / "metadata"
    text = path.read_text()
    path.write_text(text.replace('"since_log": [3]', '"since_log": [9]'))
    assert path.read_text() != text
    abstract = with_sharding(jax.eval_shape(lambda: state_at(0)), replicated(create_mesh()))
    with pytest.raises(UserError, match="damaged, or of another model or version: progress differ"):
        Checkpoints(tmp_path, metric="score", read_only=True).restore(abstract, 3)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="score")
    save_all(checkpoints, {3: 1.0})
    checkpoints.close()
    other = jax.eval_shape(lambda: create_train_state(nnx.Linear(8, 5, rngs=nnx.Rngs(0)), optax.adam(1e-3)))
    with pytest.raises(UserError, match="damaged, or of another model or version"):
        Checkpoints(tmp_path, metric="score").restore(with_sharding(other, replicated(create_mesh())), 3)


def test_a_config_keeps_a_path_that_is_no_unicode(tmp_path):
    config = demo.get_config()
    config.data.path = os.fsdecode(b"data/pr\xe9")
    save_config(config, tmp_path)
    assert load_config(tmp_path).data.path == config.data.path


def test_a_run_goes_on_under_its_own_config_only(tmp_path):
    config = demo.get_config()
    config.seed = 5
    save_config(config, tmp_path)
    config.seed = 0
    save_config(config, tmp_path)  # nothing is trained yet, so there is nothing to mix up
    assert load_config(tmp_path).to_json() == config.to_json()
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    config.log.every_steps = 7
    config.checkpoint.every_epochs = 2
    config.data.num_workers = 3
    save_config(config, tmp_path)
    assert load_config(tmp_path).log.every_steps == 7
    config.train.batch_size = 4
    config.augment.flip.probability = 0.0
    with pytest.raises(UserError) as error:
        save_config(config, tmp_path)
    assert "augment.flip.probability: 0.5 there, 0.0 now" in str(error.value)
    assert "train.batch_size: 8 there, 4 now" in str(error.value)


class FakeDataset:
    def __init__(self, digest, pairs=24):
        self.name, self.digest, self.pairs = "fume_ogi/original/1.1.0", digest, pairs

    def split(self, name):
        return range(self.pairs)


def test_a_run_goes_on_with_its_own_dataset_only(tmp_path, capsys):
    save_dataset(FakeDataset("abc"), tmp_path)
    save_dataset(FakeDataset("def"), tmp_path)  # nothing is trained yet
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    save_dataset(FakeDataset("def"), tmp_path)
    with pytest.raises(UserError) as error:
        save_dataset(FakeDataset("ghi", pairs=12), tmp_path)
    assert "there: fume_ogi/original/1.1.0 (24 train, 24 val, 24 test pairs, digest def)" in str(error.value)
    assert "now: fume_ogi/original/1.1.0 (12 train, 12 val, 12 test pairs, digest ghi)" in str(error.value)
    warn_of_other_dataset(FakeDataset("def"), tmp_path, Console())
    assert capsys.readouterr().out == ""
    warn_of_other_dataset(FakeDataset("ghi"), tmp_path, Console())
    assert "was trained on fume_ogi/original/1.1.0" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_takes_the_dataset_that_it_goes_on_with(tmp_path):
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    save_dataset(FakeDataset("abc"), tmp_path)
    with pytest.raises(UserError, match="another dataset"):
        save_dataset(FakeDataset("def"), tmp_path)
    (tmp_path / "dataset.json").write_text("{}")
    save_dataset(FakeDataset("def"), tmp_path)
    (tmp_path / "dataset.json").write_text('{"name": 3}')
    with pytest.raises(UserError, match=r"dataset\.json is damaged"):
        save_dataset(FakeDataset("def"), tmp_path)


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
