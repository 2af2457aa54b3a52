"""Sweep files expand to runs with names, configs and overrides."""

import pytest

from configs import demo
from fume_jax.runtime.errors import UserError
from launch.plan import SMOKE, Run, Sweep, expand, load_config, load_sweep
from tests.commands import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # of ml_collections
SWEEPS = sorted((ROOT / "launch" / "sweeps").glob("*.py"))


def test_what_all_runs_share_yields_to_entries_and_to_a_small_run():
    shared = {"train.epochs": 6, "eval.every_epochs": 3, "model.gas": "co2"}
    sweep = Sweep(shared=shared, entries={"a": {}, "b": {"eval.every_epochs": 2}})
    assert [run.overrides for run in expand(sweep)] == [
        shared | {"seed": 0},
        shared | {"eval.every_epochs": 2, "seed": 0},
    ]
    small = expand(sweep, smoke=True)[1].overrides
    assert (small["train.epochs"], small["eval.every_epochs"], small["model.gas"]) == (SMOKE["train.epochs"], 2, "co2")


def test_every_entry_is_combined_with_every_value_of_the_grid_and_every_seed():
    sweep = Sweep(
        config="demo",
        entries={"a": {"model.fusion": "add"}, "b": {"config": "fume:early_fusion", "model.gas": "co2"}},
        grid={"optimizer.learning_rate": [1e-3, 0.0003], "train.batch_size": [8]},
        seeds=(0, 7),
        names={"optimizer.learning_rate": "rate"},
    )
    rest = {"train.batch_size": 8}
    assert expand(sweep) == [
        Run(
            f"{entry}-rate_{rate:g}-batch_size_8-seed_{seed}",
            config,
            own | {"optimizer.learning_rate": rate} | rest | {"seed": seed},
        )
        for entry, config, own in (
            ("a", "demo", {"model.fusion": "add"}),
            ("b", "fume:early_fusion", {"model.gas": "co2"}),
        )
        for rate in (1e-3, 0.0003)
        for seed in (0, 7)
    ]


def test_a_sweep_of_nothing_is_one_run():
    assert expand(Sweep()) == [Run("seed_0", "fume", {"seed": 0})]
    assert expand(Sweep("a.py")) == [Run("seed_0", "a.py", {"seed": 0})]


def test_what_a_sweep_varies_wins_over_the_smoke_version_and_settings_over_both():
    sweep = Sweep(grid={"train.batch_size": [16], "train.epochs": [9]})
    (run,) = expand(sweep, smoke=True, settings={"train.epochs": "3"})
    assert run.overrides == {**SMOKE, "train.batch_size": 16, "train.epochs": "3", "seed": 0}
    assert run.name == "batch_size_16-epochs_9-seed_0"


def test_tuples_make_readable_names_and_reach_the_config():
    (run,) = expand(Sweep(grid={"loss.cls_alpha": [(1.0, 8.0, 1.2)]}))
    assert run.name == "cls_alpha_1.0_8.0_1.2-seed_0"
    assert load_config(run).loss.cls_alpha == (1.0, 8.0, 1.2)


@pytest.mark.parametrize(
    "sweep, words",
    [
        (Sweep(entries={"a/b": {}}), "'a/b-seed_0' cannot name a run"),
        (Sweep(entries={".hidden": {}}), "cannot name a run"),
        (Sweep(grid={"model.fusion": ["a b", "a_b"]}), "Two runs of the sweep are called fusion_a_b-seed_0"),
        (Sweep(seeds=(1, 1)), "Two runs of the sweep are called seed_1"),
    ],
)
def test_names_that_are_no_folders_or_not_unique_are_refused(sweep, words):
    with pytest.raises(UserError, match=words):
        expand(sweep)


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"optimizer.learning_rat": 1e-3}, 'run x: .*Did you mean "learning_rate"'),
        ({"optimizer.learning_rate": "fast"}, "run x: .*could not convert string to float"),
        ({"optimizer.learning_rate": -1.0}, "run x: config.optimizer.learning_rate is -1.0; expected more than 0"),
        ({"model.fusion": "sum"}, "run x: config.model: .*sum"),
        ({"loss.alpha": (1.0, 1.0, 1.0)}, "run x: .*alpha"),
        ({"model.tasks": "segmentation"}, "run x: config.checkpoint.best_metric"),
    ],
)
def test_a_misspelt_key_or_impossible_value_is_refused_naming_the_run(overrides, words):
    with pytest.raises(UserError, match=f"(?s){words}"):
        load_config(Run("x", "fume", overrides))


def test_the_config_is_the_one_that_the_command_would_train_by():
    config = load_config(Run("x", "demo", {"train.epochs": 3, "model.gas": "co2", "deterministic": True}))
    assert (config.train.epochs, config.model.gas, config.deterministic) == (3, "co2", True)
    assert config.data.width == demo.get_config().data.width


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
@pytest.mark.parametrize("smoke", [False, True], ids=["whole", "smoke"])
def test_every_sweep_of_the_project_has_valid_configs_that_differ(path, smoke):
    configs = [load_config(run) for run in expand(load_sweep(path), smoke=smoke)]
    assert len({config.to_json() for config in configs}) == len(configs) > 1
    assert all((config.data.height == SMOKE["data.height"]) == smoke for config in configs)
    assert not smoke or all(config.train.epochs <= 2 for config in configs)
    assert f"{len(configs)} runs" in path.read_text()


def test_baselines_are_the_five_models_that_are_no_fume():
    from fume_jax.models import MODELS

    configs = [load_config(run) for run in expand(load_sweep(ROOT / "launch" / "sweeps" / "baselines.py"))]
    fume = {name for name in MODELS if name.startswith("fume")}
    assert {config.model.name for config in configs} == set(MODELS) - fume


def test_the_ablations_have_every_option_of_the_model():
    from fume_jax.config import get_architecture
    from fume_jax.models.architecture import FUSIONS, GAS_CHOICES, TASKS

    runs = expand(load_sweep(ROOT / "launch" / "sweeps" / "ablations.py"))
    architectures = [get_architecture(load_config(run)) for run in runs]
    options = {"share_encoder": (True, False), "fusion": FUSIONS, "gas": GAS_CHOICES, "tasks": TASKS}
    for name, choices in options.items():
        assert {getattr(architecture, name) for architecture in architectures} == set(choices)


def test_an_unknown_config_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"run x: There is no config 'fumes'; choose one of: .*fume"):
        load_config(Run("x", "fumes", {}))


def test_a_file_without_a_sweep_is_refused(tmp_path):
    (tmp_path / "file.py").write_text("def get_sweep():\n    return {}\n")
    with pytest.raises(UserError, match=r"file.py is no sweep; expected a function get_sweep\(\)"):
        load_sweep(tmp_path / "file.py")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_sweep():\n    return 1 // 0", "line 2: ZeroDivisionError"),
        ("def get_sweep(:", "line 1: SyntaxError"),
        ("import sys\nsys.exit(0)", "line 2: SystemExit: 0"),
        (
            "import launch.plan\nsweep = launch.plan.Sweep(seeds=3)",
            "line 2: TypeError: seeds is 3; expected a",
        ),
        ("import launch.plan\nsweep = launch.plan.Sweep(grid={'seed': 1})", r"line 2: .*grid\['seed'\] is 1; expected"),
        ("import launch.plan\nsweep = launch.plan.Sweep(entries=['a'])", "line 2: .*entries is .*; expected a mapping"),
        ("def get_sweep():\n    return None", "is no sweep"),
        ("", "is no sweep"),
    ],
)
def test_a_mistake_in_a_sweep_has_its_line(text, words, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(UserError, match=rf"{tmp_path}/mine\.py.*{words}"):
        load_sweep(tmp_path / "mine.py")


def test_paths_of_a_sweep_are_on_this_machine(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    (run,) = expand(Sweep("demo", {"": {"data.path": "~/data", "init_from": "~/run"}}))
    config = load_config(run)
    assert (config.data.path, config.init_from) == ("/home/ada/data", "/home/ada/run")
    (run,) = expand(Sweep("demo", {"": {"data.path": "gs://bucket/data"}}))
    with pytest.raises(UserError, match=r"--config\.data\.path is gs://bucket/data; expected a path on this machine"):
        load_config(run)
