"""The command as a user runs it: shares of a list that fail, are killed, and go on. Most predictions are fake ones."""

import csv
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from fume_jax.data.recording_list import Recording
from fume_jax.runtime.errors import UserError
from launch import status
from launch.shares import check_places, divide, exit_code
from tests.camera import write_sequence
from tests.commands import ROOT, assert_refused, run, start
from tests.launch.six import child

NAMES = [f"bottle{i}" for i in range(5)]


@pytest.fixture
def films(tmp_path):
    """A list of five recordings, whose films are empty files."""
    rows = ["id,co2,ch4"]
    for name in NAMES:
        (tmp_path / f"{name}.seq").touch()
        rows.append(f"{name},{name}.seq,")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def fake(films):
    """Words of a command that predicts the list in two shares, both at once."""
    flags = [f"--recordings={films}/list.csv", f"--output={films}/out", "--shares=2", "--parallel=2", "--gpus=0"]
    yield ["tests.launch.fake_prediction", "launch.predict", *flags]
    (films / "out" / "hold").unlink(missing_ok=True)  # what a test has left ends


def predicted(folder):
    return (folder / "out" / "predicted.txt").read_text().split()


def rows(folder):
    with (folder / "out" / "recordings.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def shares(printed):
    """State, recordings and failed ones of each share in the table."""
    table = printed[printed.index("share ") :].split("\n\n")[0]
    return {line.split()[0]: line.split()[1:4] for line in table.splitlines()[1:]}


def process_of(launcher, share):
    """The process that predicts a share, once it has a recording."""

    def has_predicted(words):
        if f"--share={share}" not in words or "--only_check_args" in words:
            return False
        output = next(word for word in words if word.startswith("--output=")).partition("=")[2]
        return os.path.exists(f"{output}/{NAMES[int(share[0])]}/recording.json")

    return child(launcher, has_predicted)


def test_shares_have_each_recording_once_and_none_is_empty():
    for count in range(1, 9):
        found = divide("list.csv", "out", NAMES, count, [])
        assert len(found) == min(count, len(NAMES))
        assert sorted(name for share in found for name in share.recordings) == NAMES
        for share in found:
            index, of = share.arguments("", None)[4].removeprefix("--share=").split("/")
            assert share.recordings == NAMES[int(index) :: int(of)]


@pytest.mark.slow
def test_shares_predict_a_list_into_one_table_and_nothing_twice(fake, films):
    result = run(*fake, "--", "--save=", "--batch-size=2")
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(predicted(films)) == NAMES
    assert [row["id"] for row in rows(films)] == NAMES
    assert shares(result.stdout) == {"0-of-2": ["done", "3/3", "0"], "1-of-2": ["done", "2/2", "0"]}
    assert result.stdout.endswith(f"{films}/out/recordings.csv: 5 of 5 recordings\n")
    assert "--save= --batch-size=2" in (films / "out" / ".shares" / "1-of-2" / "log.txt").read_text()

    # Nothing is left, until the list has one more or a result is gone.
    again = run(*fake, "--", "--save=", "--batch-size=2")
    assert again.returncode == 0
    assert "0 of 2 shares to do" in again.stdout
    (films / "sixth.seq").touch()
    with (films / "list.csv").open("a") as file:
        print("sixth,sixth.seq,", file=file)
    more = run(*fake, "--", "--save=", "--batch-size=2")
    assert "1 of 2 shares to do" in more.stdout, more.stdout + more.stderr
    assert predicted(films)[5:] == ["sixth"]
    (films / "out" / "bottle2" / "recording.json").unlink()
    assert "1 of 2 shares to do" in run(*fake, "--", "--save=", "--batch-size=2").stdout
    assert predicted(films)[6:] == ["bottle2"]
    assert [row["id"] for row in rows(films)] == [*NAMES, "sixth"]


@pytest.mark.slow
def test_a_recording_that_fails_is_named_and_tried_again(fake, films):
    (films / "bottle3.seq").unlink()
    (films / "list.csv").write_text((films / "list.csv").read_text().replace("id,co2,ch4", "id,co2,ch4,mm"))
    result = run(*fake)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "note: " in result.stdout and "columns that are not read: mm; known are" in result.stdout
    assert shares(result.stdout) == {"0-of-2": ["done", "3/3", "0"], "1-of-2": ["failed", "2/2", "1"]}
    assert [row["fault"] for row in rows(films)] == [*[""] * 3, f"There is no file {films}/bottle3.seq", ""]
    assert result.stdout.splitlines()[-2:] == [
        f"{films}/out/recordings.csv: 5 of 5 recordings",
        f"failed: bottle3: There is no file {films}/bottle3.seq",
    ]
    (films / "out" / "recordings.csv").unlink()
    shown = run(*fake, "--status")
    assert [row["id"] for row in rows(films)] == NAMES, "the status brings the table up to date"
    assert shown.returncode == 0
    assert shares(shown.stdout) == shares(result.stdout)
    assert shown.stdout.splitlines()[-1] == result.stdout.splitlines()[-1]

    (films / "bottle3.seq").touch()
    again = run(*fake)
    assert again.returncode == 0, again.stdout
    assert "1 of 2 shares to do" in again.stdout
    assert predicted(films)[5:] == ["bottle3"]


@pytest.mark.slow
def test_a_list_of_which_nothing_can_be_predicted_is_a_failure(fake, films):
    for name in NAMES:
        (films / f"{name}.seq").unlink()
    assert run(*fake).returncode == 1


@pytest.mark.slow
def test_a_killed_share_goes_on_and_one_that_was_left_is_not_started_twice(fake, films):
    (films / "out").mkdir()
    (films / "out" / "hold").touch()
    launcher = start(*fake)
    process_of(launcher, "1/2")
    process_of(launcher, "0/2").kill()
    while not json.loads((films / "out/.shares/0-of-2/status.json").read_text())["exit_code"]:
        time.sleep(0.1)
    assert_refused(run(*fake), "Another process is launching")
    assert run(*fake, "--status").returncode == 0
    assert [row["id"] for row in rows(films)] == NAMES[:2], "those that are done, while the others are predicted"
    launcher.kill()  # the other share goes on without it
    launcher.wait()
    launcher.stdout.close()
    other_count = [word.replace("--shares=2", "--shares=3") for word in fake]
    assert_refused(run(*other_count), "Share 1-of-2 is running", "--shares=2")

    launcher = start(*fake)
    while "shares to do" not in (line := launcher.stdout.readline()):
        assert launcher.poll() is None, line
    assert line.startswith("1 of 2")
    process_of(launcher, "0/2")
    launcher.terminate()
    printed = launcher.communicate()[0]
    assert launcher.returncode == 75, printed
    assert {state[0] for state in shares(printed).values()} == {"stopped"}

    (films / "out" / "hold").unlink()
    last = run(*fake)
    assert last.returncode == 0, last.stdout + last.stderr
    assert "2 of 2 shares to do" in last.stdout
    assert sorted(predicted(films)) == NAMES
    assert [row["id"] for row in rows(films)] == NAMES


def test_a_dry_run_shows_the_commands_and_writes_nothing(films):
    flags = [f"--recordings={films}/list.csv", f"--output={films}/out", "--shares=9", "--gpus=0"]
    result = run("launch.predict", *flags, "--dry_run", "--", "--save=", "--model=~/a.onnx")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("# 5 runs, 1 at once\n")
    words = f"-m fume_jax.predict --recordings={films}/list.csv --output={films}/out --share=4/5 --save= "
    assert words in result.stdout
    assert not (films / "out").exists()
    script = run("launch.predict", *flags[:3], "--backend=slurm", "--slurm=mem=8GB", "--dry_run")
    assert "#SBATCH --job-name=out\n" in script.stdout, script.stderr
    assert script.stdout.count("-m fume_jax.predict ") == 5


@pytest.mark.parametrize(
    "options, words",
    [
        (["--backend=cloud", "--bucket=gs://none"], ["list.csv, expected a path in recordings/", "--output is"]),
        (["--backend=slurm", "--gpus=2"], ["--gpus is 2; a share has one GPU or TPU chip at most"]),
        (["--backend=slurm", "--nodes=2"], ["--nodes is 2; a share has one GPU or TPU chip at most"]),
        (["--bucket=gs://none"], ["--bucket is for --backend=tpu or cloud, not local"]),
        (["--", "--sav=masks"], ["fume predict says", "sav"]),
        (["--", "word"], ["Not understood: word"]),
        (["--", "--share=0/2"], ["After -- there is --share=0/2"]),
        (["--save=masks"], ["save"]),
    ],
)
def test_flags_that_do_not_fit_are_refused_before_anything_is_written(films, options, words):
    flags = [f"--recordings={films}/list.csv", f"--output={films}/out", "--shares=2"]
    assert_refused(run("launch.predict", *flags, *options), *words)
    assert not (films / "out").exists()


def test_help_after_the_flags_is_that_of_fume_predict(films):
    result = run("launch.predict", "--shares=2", "--", "--help")
    assert result.returncode == 0, result.stderr
    assert "--mm_per_pixel" in result.stdout and "--backend: <local" not in result.stdout


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"path": "/disk/list.csv"}, "--recordings is /disk/list.csv, expected a path in recordings/"),
        ({"path": "recordings/../list.csv"}, "--recordings is recordings/../list.csv"),
        ({"output": "results"}, "--output is results, expected a path in predictions/"),
        ({"options": ["--save=", "--model=~/a.onnx"]}, "--model is .*/a.onnx, expected a path in runs/"),
        ({"options": ["--batch-size", "2", "-workdir", "demo"]}, "--workdir is demo, expected a path in runs/"),
        ({"films": ["recordings/a.seq", "/disk/b.seq"]}, "machines.*: co2 of 1 is /disk/b.seq, .*and copy it"),
    ],
)
def test_a_cloud_is_told_of_what_the_bucket_cannot_hold(changes, words):
    values = {"path": "recordings/list.csv", "output": "predictions", "options": ["--workdir=runs/demo"]} | changes
    films = values.pop("films", ["recordings/a.seq", "./recordings/b/*.png"])
    recordings = [Recording(str(i), co2=film) for i, film in enumerate(films)]

    def check(path, output, options):
        check_places(divide(path, output, recordings, 2, options)[0], recordings)

    with pytest.raises(UserError, match=f"(?i){words}"):
        check(**values)
    recordings = [Recording("0", ch4="recordings/a.seq")]
    check("recordings", "predictions/spring", ["--model", "runs/a.onnx"])
    check("./recordings/list.csv", "predictions", [])


def test_shares_of_a_cloud_have_the_exit_code_that_skypilot_tells(tmp_path):
    for name in ("0-of-2", "1-of-2"):
        (tmp_path / name).mkdir()
        status.write_job(tmp_path / name, status.Job("cloud", "7"))
    assert exit_code(tmp_path, {"0-of-2": status.DONE, "1-of-2": status.DONE}, False) == 0
    assert exit_code(tmp_path, {"0-of-2": status.DONE, "1-of-2": status.FAILED}, False) == 2
    assert exit_code(tmp_path, {"0-of-2": status.DONE, "1-of-2": status.RUNNING}, False) == 0


@pytest.mark.slow
def test_a_dry_run_for_a_cloud_writes_tasks_of_the_checkout(tmp_path):
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / "list.csv").write_text("id,co2,ch4\na,a.seq,\nb,b.seq,\n")

    def predict(*flags):
        own = ["--recordings=recordings/list.csv", "--output=predictions/spring", "--shares=2", "--bucket=gs://fume"]
        command = [sys.executable, "-m", "launch.predict", *own, *flags]
        variables = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)

    refused = predict("--backend=cloud", "--accelerator=L4:4")
    assert_refused(refused, "--accelerator is L4:4; a share has one GPU or TPU chip at most")
    assert not (tmp_path / "predictions").exists()
    result = predict("--backend=tpu", "--dry_run")
    assert result.returncode == 0, result.stderr
    assert "accelerators: tpu-v5litepod-1\n" in result.stdout
    tasks = tmp_path / "predictions" / "spring" / ".shares" / "tasks"
    assert {path.name for path in tasks.iterdir()} == {"0-of-2.yaml", "1-of-2.yaml"}
    shown = predict("--status")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.endswith("\n  gcloud storage rsync -r gs://fume/predictions/spring predictions/spring\n")


@pytest.mark.slow
def test_real_shares_predict_real_recordings(tmp_path):
    frames = np.random.default_rng(0).integers(7000, 9000, (2, 48, 64))
    for name in ("left", "right"):
        (tmp_path / "films" / name).mkdir(parents=True)
        for gas in ("co2", "ch4"):
            write_sequence(tmp_path / "films" / name / f"{gas}.seq", frames, start=1.7e9)
    one = run(
        "fume_jax.predict", f"--recordings={tmp_path}/films", f"--output={tmp_path}/one", "--save=", "--batch_size=1"
    )
    assert one.returncode == 0, one.stdout + one.stderr
    flags = [f"--recordings={tmp_path}/films", f"--output={tmp_path}/out", "--shares=2", "--gpus=0"]
    result = run("launch.predict", *flags, "--", "--save=", "--batch_size=1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert shares(result.stdout) == {"0-of-2": ["done", "1/1", "0"], "1-of-2": ["done", "1/1", "0"]}
    assert [row["id"] for row in rows(tmp_path)] == ["left", "right"]
    assert (tmp_path / "out" / "recordings.csv").read_bytes() == (tmp_path / "one" / "recordings.csv").read_bytes()
    again = run("launch.predict", *flags, "--", "--save=", "--batch_size=1")
    assert (again.returncode, "0 of 2 shares to do" in again.stdout) == (0, True)
