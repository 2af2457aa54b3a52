"""Preparing datasets beside others, in spite of kills, without a network; reports that cannot be written."""

import signal
import socket
import tempfile
import time

import psutil
import pytest

from datasets.paired_frames import preparing
from fume_jax.data.dataset import Dataset
from fume_jax.runtime.errors import UserError
from tests.commands import run, start
from tests.data import test_dataset
from tests.datasets import recordings


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recordings")
    recordings.write(folder)
    return folder


def prepare(source, data_dir, *arguments):
    own = [f"--source={source}", f"--annotations={source}/all.csv", f"--data_dir={data_dir}"]
    return run("datasets.fume_ogi", *own, f"--report={data_dir}.csv", *arguments)


def test_a_second_preparation_of_a_dataset_is_refused_at_once(source, tmp_path):
    with preparing(tmp_path / "data", "fume_ogi", "original"):
        result = prepare(source, tmp_path / "data")
        assert result.returncode == 1 and "Another process is preparing original in" in result.stderr
        assert "row" not in result.stdout, "nothing was read"
        assert prepare(source, tmp_path / "data", "--name=another").returncode == 0
    assert prepare(source, tmp_path / "data").returncode == 0


def test_what_a_killed_preparation_left_is_removed_by_the_next_one(tmp_path):
    left, other, prepared = (
        tmp_path / "fume_ogi" / name
        for name in ("own_64x48/incomplete.ABC_1.1.0", "own_seed7_64x48/incomplete.ABC_1.1.0", "own_64x48/1.1.0")
    )
    for folder in (left, other, prepared):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    with preparing(tmp_path, "fume_ogi", "own"):
        assert not left.exists() and other.exists() and prepared.exists()


@pytest.mark.parametrize("name", ["../../x", "a/b", "/x", "..", "", ".x", "-x", "x\n", "x" * 300])
def test_a_name_that_is_no_file_name_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="The name of a dataset is"), preparing(tmp_path / "data", "fume_ogi", name):
        pass
    assert not list(tmp_path.iterdir())


def test_nothing_is_asked_for_on_the_network_and_no_temporary_folder_is_made(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"called with {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    path = test_dataset.prepare(tmp_path)
    assert len(Dataset(str(path)).labels("train")) == test_dataset.EXAMPLES


def test_faults_are_shown_although_their_report_cannot_be_written(tmp_path):
    recordings.write(tmp_path / "own")
    for number in (3, 5, 7, 9, 11):
        (tmp_path / f"own/masks/{number:03d}.png").unlink()
    refused = prepare(tmp_path / "own", tmp_path / "data", "--report=/dev/full")
    assert refused.returncode == 1 and "Traceback" not in refused.stderr
    assert "WARNING: /dev/full could not be written: No space left on device. All of them:" in refused.stderr
    assert "masks/011.png" in refused.stderr, "also those that are only in the report else"
    allowed = prepare(tmp_path / "own", tmp_path / "data", "--report=/dev/full", "--allow=missing_file,empty_class")
    assert allowed.returncode == 2, allowed.stderr
    assert "5 row(s) dropped" in allowed.stdout and "masks/011.png" in allowed.stdout
    assert "The dataset is ready" in allowed.stdout


def test_a_report_holds_nothing_that_a_spreadsheet_would_run(tmp_path):
    table = recordings.write(tmp_path / "own")
    table.write_text(table.read_text().replace("images/003.png", '"=HYPERLINK(""http://x"")"'))
    result = prepare(tmp_path / "own", tmp_path / "data")
    assert result.returncode == 1
    assert "=HYPERLINK" in result.stderr
    cells = (tmp_path / "data.csv").read_text().replace('"', ",").split(",")
    assert not [cell for cell in cells if cell.startswith("=")]


@pytest.mark.parametrize("option", [f"--seed={2**70}"])
def test_large_seeds_are_seeds(option, source, tmp_path):
    result = prepare(source, tmp_path / "data", option)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, *(pytest.param(n, marks=pytest.mark.soak) for n in (signal.SIGINT, signal.SIGKILL))]
)
def test_a_preparation_that_is_ended_leaves_no_worker(number, tmp_path):
    process = start("datasets.synthetic_ogi", "--name=demo", "--height=48", "--width=64", f"--data_dir={tmp_path}")
    this, workers, config = psutil.Process(process.pid), [], tmp_path / "synthetic_ogi" / "demo_64x48"
    while process.poll() is None and not (len(workers) > 1 and list(config.glob("incomplete.*/*"))):
        workers = this.children(recursive=True)
        time.sleep(0.1)
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == {signal.SIGKILL: -9}.get(number, 75), output
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    if number != signal.SIGKILL:
        assert "Traceback" not in output and "stopped; run the same command again" in output
        assert not list(config.glob("*"))
    with preparing(tmp_path, "synthetic_ogi", "demo_64x48"):
        assert not list(config.glob("incomplete.*"))
