"""What every command promises alike: exit codes, one plain line about a mistake, no traceback, nothing left behind."""

import os
import shutil

import pytest

from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError
from tests.commands import ROOT, assert_refused, run

FRAME = "fume_jax/assets/examples/healthy_jet_co2.png"
# Arguments with which a command would start, and its flags that are paths.
COMMANDS = {
    "fume_jax.main": (["--config=demo", "--workdir=x"], ["workdir", "config", "config.data.path", "config.init_from"]),
    "fume_jax.evaluate": (["--workdir=x"], ["workdir", "data", "output", "predictions"]),
    "fume_jax.predict": ([f"--co2={FRAME}", "--output=x"], ["output", "co2", "ch4", "workdir", "model"]),
    "fume_jax.commands.watch": (["--co2=nowhere.mp4"], ["co2", "ch4", "output", "films", "events", "workdir", "model"]),
    "fume_jax.commands.review": (["--predictions=x", "--output=x"], ["predictions", "output", "workdir", "model"]),
    "fume_jax.export": (["--format=weights", "--output=x"], ["output", "workdir", "data"]),
    "fume_jax.convert": (["--from_torch=x", "--model=fume", "--workdir=x"], ["workdir", "from_torch", "config"]),
    "fume_jax.app": (["--port=0"], ["workdir", "model"]),
    "fume_jax.summary": ([], []),
    "datasets.synthetic_ogi": (["--name=tiny"], ["data_dir"]),
    "datasets.synthetic_ogi.film": (["--name=tiny", "--output=x"], ["output"]),
    "datasets.fume_ogi": (["--source=x"], ["source", "data_dir", "report", "annotations", "write_pairs"]),
    "datasets.fume_ogi.example": (["--output=x"], ["output"]),
    "datasets.export": (["--data=x", "--format=nnunet", "--output=x"], ["data", "output"]),
    "launch.sweep": (["--sweep=launch/sweeps/seeds.py"], ["sweep", "workdir", "set=data.path"]),
    "launch.cv": (["--output=x"], ["output", "data", "splits", "config", "sweep"]),
    "launch.compare": (["--runs=tests", "--main=x"], ["runs", "output"]),
    "launch.report": (["--runs=tests", "--output=x"], ["runs", "output", "data"]),
    "launch.predict": (["--recordings=fume_jax/assets", "--output=x", "--shares=2"], ["recordings", "output"]),
}
every_command = pytest.mark.parametrize("module", COMMANDS)
PATHS = [(module, flag) for module, (_, paths) in COMMANDS.items() for flag in paths]


def arguments(module, **changes):
    """The arguments with which a command would start, with other values of some flags."""
    kept = [word for word in COMMANDS[module][0] if word.partition("=")[0].removeprefix("--") not in changes]
    return kept + [f"--{flag}={value}" for flag, value in changes.items()]


@every_command
def test_a_flag_that_there_is_not_is_refused(module):
    assert_refused(run(module, *arguments(module), "--nope=1"), "nope")


@every_command
def test_a_word_that_is_no_flag_is_refused(module):
    assert_refused(run(module, *arguments(module), "word"), "Not understood: word")


@pytest.mark.parametrize(
    ("module", "missing"),
    [
        ("fume_jax.main", "--config and --workdir"),
        ("fume_jax.evaluate", "--workdir"),
        ("fume_jax.predict", "--output"),
        ("fume_jax.commands.review", "--predictions and --output"),
        ("fume_jax.export", "--format"),
        ("fume_jax.convert", "--from_torch"),
        ("datasets.fume_ogi", "--source"),
        ("datasets.fume_ogi.example", "--output"),
        ("datasets.export", "--data and --format and --output"),
        ("launch.sweep", "--sweep"),
        ("launch.cv", "--output"),
        ("launch.compare", "--runs"),
        ("launch.report", "--runs"),
        ("launch.predict", "--recordings"),
    ],
)
def test_a_flag_that_is_missing_is_named(module, missing):
    assert_refused(run(module), f"Expected {missing}", "--help")


@every_command
def test_sigterm_ends_a_command_with_75_and_one_line(module):
    result = run(module, *arguments(module), terminated=True)
    assert result.returncode == 75, result.stderr
    assert result.stderr == "stopped; run the same command again\n"


@pytest.mark.parametrize(
    ("module", "changes", "words"),
    [
        ("fume_jax.main", {"config": "nowhere.py"}, "There is no config file nowhere.py"),
        ("fume_jax.main", {"config": "nowhere"}, "There is no config 'nowhere'; choose one of: demo, fume"),
        ("fume_jax.main", {"config.data.path": "nowhere"}, "no prepared dataset in 'nowhere'"),
        ("fume_jax.evaluate", {"workdir": "nowhere"}, "nowhere is not a run folder"),
        ("fume_jax.evaluate", {"workdir": "tests"}, "tests is not a run folder"),
        ("fume_jax.evaluate", {"workdir": "README.md"}, "README.md is not a run folder"),
        ("fume_jax.predict", {"workdir": "nowhere"}, "nowhere"),
        ("fume_jax.predict", {"co2": "nowhere/*.png"}, "nowhere"),
        ("fume_jax.predict", {"output": "README.md"}, "README.md is a file"),
        ("fume_jax.predict", {"model": "nowhere.onnx"}, "nowhere.onnx"),
        ("fume_jax.commands.watch", {}, "There is no file nowhere.mp4"),
        ("fume_jax.commands.watch", {"co2": "tests"}, "tests is a folder"),
        ("fume_jax.commands.review", {"predictions": "nowhere"}, "There is no folder nowhere"),
        ("fume_jax.commands.review", {"output": "tests"}, "tests is not empty"),
        ("fume_jax.export", {"workdir": "nowhere"}, "nowhere"),
        ("fume_jax.export", {"workdir": "tests", "output": "x"}, "tests is not a run folder"),
        ("fume_jax.convert", {"from_torch": "nowhere.pth"}, "There is no file nowhere.pth"),
        ("fume_jax.app", {"workdir": "nowhere"}, "nowhere"),
        ("datasets.synthetic_ogi", {"data_dir": "README.md"}, "README.md"),
        ("datasets.fume_ogi", {"source": "nowhere"}, "There is no folder nowhere"),
        ("datasets.export", {"data": "nowhere"}, "no prepared dataset in 'nowhere'"),
        ("datasets.export", {"output": "tests"}, "--output=tests is there already"),
        ("launch.sweep", {"sweep": "nowhere.py"}, "nowhere.py"),
        ("launch.sweep", {"sweep": "README.md"}, "README.md, line "),
        ("launch.cv", {"splits": "nowhere.csv"}, "There is no file nowhere.csv; expected a table of folds"),
        ("launch.cv", {"data": "nowhere"}, "no prepared dataset in 'nowhere'"),
        ("launch.compare", {"runs": "nowhere"}, "There is no folder nowhere"),
        ("launch.compare", {"runs": "tests"}, "--runs=tests holds no scored run"),
        ("launch.report", {"runs": "tests"}, "--runs=tests holds no scored run"),
        ("launch.report", {"output": "README.md"}, "README.md is a file"),
        ("launch.predict", {"recordings": "nowhere.csv"}, "There is no file or folder nowhere.csv"),
        ("launch.predict", {"output": "README.md"}, "README.md is a file"),
    ],
)
def test_a_path_that_is_not_what_it_should_be_is_named(module, changes, words):
    assert_refused(run(module, *arguments(module, **changes)), words)
    assert not (ROOT / "x").exists() and not (ROOT / "nowhere").exists()


@pytest.mark.parametrize(
    ("module", "flag"),
    [
        ("fume_jax.main", "workdir"),
        ("fume_jax.evaluate", "output"),
        ("fume_jax.export", "output"),
        ("datasets.synthetic_ogi", "data_dir"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named(module, flag, tiny_dataset, tmp_path):
    (tmp_path / "file").touch()
    others = {"config.data.path": tiny_dataset} if module == "fume_jax.main" else {}
    if module == "fume_jax.evaluate":
        shutil.copy(ROOT / "fume_jax" / "assets" / "config.json", tmp_path)
        others = {"workdir": tmp_path}
    result = run(module, *arguments(module, **others, **{flag: tmp_path / "file" / "below"}))
    assert_refused(result, f"{tmp_path}/file")


@pytest.mark.parametrize(("module", "flag"), PATHS)
def test_the_home_in_a_path_is_expanded_and_an_address_is_refused(module, flag, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for words in ([f"--{flag}=~/a.py"], [f"--{flag}", "~/a.py"]):
        if "=" not in flag or len(words) == 1:
            assert cli.canonical_arguments(words)[-1].endswith("/home/ada/a.py")
    with pytest.raises(UserError, match=f"--{flag} is gs://bucket/a; expected a path on this machine"):
        cli.canonical_arguments([f"--{flag}=gs://bucket/a"])


@pytest.mark.parametrize(("module", "flag"), [(module, paths[0]) for module, (_, paths) in COMMANDS.items() if paths])
def test_an_address_is_refused_before_anything_is_written(module, flag):
    assert_refused(run(module, *arguments(module, **{flag: "s3://bucket/a"})), "s3://bucket/a; expected a path")
    assert not {"~", "s3:", "x"} & set(os.listdir(ROOT))


def test_the_home_is_where_a_run_is_written(tiny_dataset, tmp_path):
    (tmp_path / "run").touch()
    home = {"config.data.path": tiny_dataset, "workdir": "~/run"}
    assert_refused(
        run("fume_jax.main", *arguments("fume_jax.main", **home), HOME=str(tmp_path)), f"{tmp_path}/run is a"
    )
    assert not (ROOT / "~").exists()


def test_a_name_that_is_no_unicode_is_escaped_in_print(tmp_path):
    workdir = tmp_path / os.fsdecode(b"pr\xe9")
    (workdir / "fume-seed_0").mkdir(parents=True)
    (workdir / "fume-seed_0" / "status.json").write_text("[]")
    result = run("launch.sweep", *arguments("launch.sweep", workdir=workdir), "--status")
    assert result.returncode == 2, result.stderr
    assert f"{tmp_path}/pr\\udce9/fume-seed_0/status.json is damaged" in result.stdout


def test_a_bucket_is_named_by_its_address():
    assert cli.canonical_arguments(["--bucket=gs://name"]) == ["--bucket=gs://name"]
    assert cli.canonical_arguments(["--bucket", "gs://name"]) == ["--bucket", "gs://name"]


@pytest.mark.parametrize("module", ["fume_jax.main", "fume_jax.predict", "fume_jax.export", "fume_jax.summary"])
@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_device_that_there_is_not_is_said_in_plain_words(module, platform):
    result = run(module, *arguments(module), JAX_PLATFORMS=platform)
    assert_refused(result, f"JAX_PLATFORMS={platform}, but JAX finds no such device")
    assert not (ROOT / "x").exists()
