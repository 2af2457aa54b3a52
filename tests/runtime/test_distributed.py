"""Real processes that train together, on the CPU devices of this machine."""

import json
import os
import re
import signal
import socket
import time
from itertools import chain

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from fume_jax.runtime import distributed
from fume_jax.runtime.errors import UserError
from fume_jax.training.tensorboard import read_scalars
from tests.commands import assert_refused, run, start, train_arguments

# Processes and devices of each; larger ones are in tests/soak.
LAYOUTS = [(1, 1), (2, 2)]
# In small steps: adaptive optimisers divide gradients that are nothing but rounding by their own size.
SGD = [
    "--config.optimizer.name=sgd",
    "--config.optimizer.b1=0.0",
    "--config.optimizer.learning_rate=1e-3",
    "--config.data.sampling=uniform",
    "--config.train.batch_size=8",
    "--config.eval.every_epochs=1",
    "--config.log.every_steps=1",
]
SINGLE = [*SGD, "--config.model.name=multi_task"]


def together(module, arguments, count, devices, indices=None):
    """The running processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    found = [f"--coordinator=localhost:{port}", f"--num_processes={count}"] if count > 1 else []
    return [
        start(module, *arguments, *found, *([f"--process_id={i}"] if found else []), devices=devices)
        for i in (range(count) if indices is None else indices)
    ]


def finished(running, codes):
    """What the processes printed, once they have ended with these codes."""
    printed = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == codes, "\n---\n".join(printed)
    return printed


def wait_for(process, words):
    printed = ""
    while words not in printed:
        line = process.stdout.readline()
        assert line, f"ended without {words!r}:\n{printed}"
        printed += line


def train_together(dataset, workdir, count, devices):
    """What the processes of a run of one epoch printed."""
    arguments = [*train_arguments(dataset, workdir), *SGD, "--config.train.epochs=1"]
    return finished(together("fume_jax.main", arguments, count, devices), [0] * count)


def ask_layouts(workdir, layouts):
    """By layout, what each process says of what it reads, learns and counts."""
    printed = {layout: finished(together("tests.together", [workdir], *layout), [0] * layout[0]) for layout in layouts}
    found = {layout: [json.loads(text.splitlines()[-1]) for text in texts] for layout, texts in printed.items()}
    for layout, shares in found.items():
        assert [tuple(share["layout"]) for share in shares] == [layout] * layout[0]
    return found


@pytest.fixture(scope="module")
def run_of_two(tiny_dataset, tmp_path_factory):
    """Folder of a run of two processes with two devices each, and what they printed."""
    workdir = tmp_path_factory.mktemp("processes") / "run"
    return workdir, train_together(tiny_dataset, workdir, 2, 2)


@pytest.fixture(scope="module")
def said(run_of_two):
    return ask_layouts(run_of_two[0], LAYOUTS)


@pytest.mark.slow
def test_the_first_process_alone_tells_and_writes(run_of_two):
    workdir, printed = run_of_two
    # Gloo prints too, its threads over one another.
    first, second = printed
    for words in ("4 cpu device(s) in 2 processes", "parameters, batch 8 (2 a device)", "step 3 of 3"):
        assert words in first
    assert not re.search(r"device\(s\)|compiled|epoch|step|loss|metrics", second), second
    files = {path.name for path in workdir.iterdir()}
    assert {"metrics.json", "validation.json", "examples", "pictures", "config.json"} <= files
    assert len(list((workdir / "events").iterdir())) == 1
    assert read_scalars(workdir)["train/loss"][0] == [1, 2, 3]
    assert [path.name for path in (workdir / ".processes").iterdir()] == ["start"]


def assert_same_steps(said, layout):
    [alone] = said[1, 1]
    for share in said[layout]:
        for step, expected in zip(share["steps"], alone["steps"], strict=True):
            assert step == pytest.approx(expected, rel=1e-5)
    losses = [step["loss"] for step in alone["steps"]]
    assert np.ptp(losses) > 1e-3 * losses[0], "steps differ by more than what is compared"


def assert_same_examples(said, layout):
    [alone] = said[1, 1]
    assert sorted(chain(*alone["read"][:3])) == sorted(chain(*alone["read"][3:])) == list(range(24))
    shares = (share["read"] for share in said[layout])
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == alone["read"]


def assert_same_counts(said, layout):
    """From one checkpoint; the 12 examples come in batches of 5 or 8, the last of them padded."""
    [alone] = said[1, 1]
    for share in said[layout]:
        assert share["examples"] == list(range(12))
        assert share["counts"].keys() == alone["counts"].keys()
        for name, counts in alone["counts"].items():
            # A pixel may be a tie, which rounding decides: 12 frames have 61,440.
            off = np.abs(np.subtract(share["counts"][name], counts)).sum() // 2
            assert off <= (0 if name.startswith("cls") else 3), name


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("check", [assert_same_steps, assert_same_examples, assert_same_counts])
def test_every_layout_learns_reads_and_counts_the_same(said, layout, check):
    check(said, layout)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_one_step_and_one_process_goes_on_there(tiny_dataset, tmp_path):
    arguments = [*train_arguments(tiny_dataset, tmp_path / "run"), *SINGLE]
    running = together("fume_jax.main", arguments, 2, 1)
    wait_for(running[0], "step 2 of 18")
    running[1].send_signal(signal.SIGTERM)
    printed = finished(running, [75, 75])
    step = int(re.search(r"stopped after step (\d+) of 18", printed[0])[1])
    assert 2 <= step < 18
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit()] == [str(step)]
    rest = start("fume_jax.main", *arguments)
    wait_for(rest, "so far on 2 device(s), now on 1")
    wait_for(rest, f"step {step + 2} of 18")
    rest.send_signal(signal.SIGTERM)
    finished([rest], [75])
    whole = start("fume_jax.main", *train_arguments(tiny_dataset, tmp_path / "whole"), *SINGLE)
    wait_for(whole, f"step {step + 2} of 18")
    whole.send_signal(signal.SIGTERM)
    finished([whole], [75])
    (steps, losses), (_, expected) = (read_scalars(tmp_path / name)["train/loss"] for name in ("run", "whole"))
    assert steps[: step + 1] == list(range(1, step + 2))
    # Rounding moves parameters across bends; other examples, or dropout elsewhere, would change more.
    np.testing.assert_allclose(losses[: step + 1], expected[: step + 1], rtol=1e-2)


# Process 0 may wait for it at a meeting or in a step.
HANGS = r"error: process 1 of 2 (did not come to barrier \d+|gives no sign of life since)"


def assert_named(dataset, tmp_path, number, words, *options, seconds=0):
    """Process 1 gets a signal some seconds after a step; process 0 says so in these words."""
    arguments = [*train_arguments(dataset, tmp_path / "run"), *SINGLE, "--barrier_seconds=20", *options]
    running = together("fume_jax.main", arguments, 2, 1)
    wait_for(running[0], "step 2 of ")
    time.sleep(seconds)
    running[1].send_signal(number)
    try:
        [printed] = finished(running[:1], [75])
    finally:
        running[1].kill()
        running[1].communicate()
    assert re.search(words, printed), printed
    assert "the same command goes on from the last checkpoint" in printed
    assert "Traceback" not in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, words",
    [
        (signal.SIGSTOP, HANGS),
        (signal.SIGKILL, r"error: (an exchange between processes failed|process 1 of 2 did not come)"),
    ],
)
def test_a_process_that_hangs_or_dies_is_named(tiny_dataset, tmp_path, number, words):
    assert_named(tiny_dataset, tmp_path, number, words)


@pytest.mark.slow
def test_a_process_that_never_comes_is_named(tiny_dataset, tmp_path):
    arguments = [*train_arguments(tiny_dataset, tmp_path / "run"), *SINGLE, "--barrier_seconds=10"]
    [printed] = finished(together("fume_jax.main", arguments, 3, 1, indices=[0]), [1])
    assert re.search(r"error: process 0 waited at localhost:\d+; processes 1, 2 of 3 did not come within 10 s", printed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "option, words",
    [
        ("--platform=gpu", "--platform=gpu, but JAX found only"),
        ("--config.optimizer.learning_rate=1", "The settings of process 1 are not those of process 0"),
        ("--num_processes=3", "--num_processes is 3 here, and 2 in process 0"),
        ("--workdir=elsewhere", "--workdir, elsewhere, is not the folder that process 0 sees"),
    ],
)
def test_an_error_of_one_process_ends_all_with_its_message(tiny_dataset, tmp_path, option, words):
    arguments = [*train_arguments(tiny_dataset, tmp_path / "run"), *SINGLE, "--barrier_seconds=30"]
    option = option.replace("elsewhere", str(tmp_path / "elsewhere"))
    words = words.replace("elsewhere", str(tmp_path / "elsewhere"))
    [first] = together("fume_jax.main", arguments, 2, 1, indices=[0])
    found = [next(word for word in first.args if word.startswith("--coordinator")), "--num_processes=2"]
    second = start("fume_jax.main", *arguments, "--process_id=1", *found, option)
    start_time = time.monotonic()
    printed = finished([first, second], [1, 1])
    assert time.monotonic() - start_time < 90, "long before a barrier ends"
    for text in printed:
        assert len(re.findall("^error: ", text, re.MULTILINE)) == 1
        assert words in text
        assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "options, words",
    [
        (["--platform=gpu"], ["--platform=gpu, but JAX found only [CpuDevice(id=0)]", "cuda12", "cuda13"]),
        (["--coordinator=localhost:1234"], ["--num_processes=N --process_id=I", "localhost:1234, None, None"]),
        (["--coordinator=localhost", "--num_processes=2", "--process_id=0"], ["is localhost; expected HOST:PORT"]),
        (["--coordinator=localhost:1234", "--num_processes=2", "--process_id=2"], ["--process_id is 2", "0 to 1"]),
    ],
)
def test_devices_and_processes_that_are_not_there_are_refused(tiny_dataset, tmp_path, options, words):
    assert_refused(run("fume_jax.main", *train_arguments(tiny_dataset, tmp_path / "run"), *options), *words)


SLURM = {
    "SLURM_JOB_ID": "4100",
    "SLURM_STEP_NODELIST": "node[07-08]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    "variables, options, found",
    [
        ({}, {}, (None, 1, 0, None)),
        (SLURM, {}, ("node07:61444", 8, 5, [1])),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {}, (None, 1, 0, None)),
        (OPEN_MPI, {"coordinator": "node1:99"}, ("node1:99", 4, 3, [1])),
        (SLURM, {"num_processes": 1}, (None, 1, 0, None)),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {}, (None, 1, 0, None)),
        ({}, {"coordinator": "node1:99", "num_processes": 2, "process_id": 1}, ("node1:99", 2, 1, None)),
    ],
)
def test_processes_are_found_by_what_their_launcher_says(monkeypatch, variables, options, found):
    for name in [name for name in os.environ if name.startswith(("SLURM_", "OMPI_"))]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**options):
        assert distributed._find_processes() == found


def test_open_mpi_that_does_not_tell_where_the_first_process_is_is_refused(monkeypatch):
    for name, value in OPEN_MPI.items():
        monkeypatch.setenv(name, value)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with pytest.raises(UserError, match=r"--coordinator=HOST:PORT .* Given: None, 4, 3"):
        distributed._find_processes()
