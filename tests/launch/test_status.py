"""States and tables of runs, from the files in the folder of a sweep."""

import dataclasses
import json
import os
import socket
import subprocess
import sys

import psutil
import pytest

from fume_jax.runtime.errors import UserError
from launch import local, status, table
from launch.status import DONE, FAILED, QUEUED, RUNNING, STOPPED, Job

JOB = Job("slurm", "7_0")


def say(folder, state, *, job=JOB.id, exit_code=None, seconds=65.0):
    """Writes what a job says of its run."""
    began = status.started(folder, job)
    if state != RUNNING:
        status.ended(folder, dataclasses.replace(began, started=began.started - seconds), exit_code)


@pytest.mark.parametrize(
    "engine, job_says, expected",
    [
        (QUEUED, None, QUEUED),
        (QUEUED, (STOPPED, 75), QUEUED),  # put back into the queue
        (RUNNING, None, RUNNING),
        (RUNNING, (RUNNING, None), RUNNING),
        (RUNNING, (DONE, 0), DONE),  # the job is just leaving
        (QUEUED, (DONE, 0), DONE),  # what sacct says is late
        (None, None, QUEUED),  # sacct does not know the job yet, or nothing at all
        (None, (RUNNING, None), RUNNING),
        (None, (STOPPED, 75), STOPPED),
        (STOPPED, None, STOPPED),
        (STOPPED, (RUNNING, None), STOPPED),  # killed before it could say so
        (STOPPED, (DONE, 0), DONE),
        (STOPPED, (FAILED, 1), FAILED),
        (STOPPED, (STOPPED, 75), STOPPED),
        (STOPPED, (STOPPED, -9), STOPPED),
        (DONE, None, DONE),  # of an engine that knows
        (FAILED, None, FAILED),
    ],
)
def test_the_state_of_a_run_is_what_engine_and_job_say_together(engine, job_says, expected, tmp_path):
    status.write_job(tmp_path, JOB)
    if job_says is not None:
        say(tmp_path, job_says[0], exit_code=job_says[1])
        assert status.read_status(tmp_path).state == job_says[0]
    assert status.state(tmp_path, {JOB: engine}) == expected


def test_a_run_that_was_never_submitted_is_queued(tmp_path):
    assert status.state(tmp_path, {}) == QUEUED


def test_what_an_earlier_job_said_is_not_said_of_the_next(tmp_path):
    say(tmp_path, FAILED, job="6_0", exit_code=1)
    status.write_job(tmp_path, JOB)
    assert status.state(tmp_path, {JOB: RUNNING}) == RUNNING
    assert status.state(tmp_path, {JOB: STOPPED}) == STOPPED


def test_times_of_all_jobs_of_a_run_add_up(tmp_path):
    say(tmp_path, STOPPED, exit_code=75, seconds=100)
    say(tmp_path, DONE, exit_code=0, seconds=200)
    assert status.read_status(tmp_path).total_seconds == pytest.approx(300, abs=5)


def write_run(folder, *, epochs=4, steps=(), validation=None, metrics=None):
    folder.mkdir()
    config = {"train": {"epochs": epochs}, "eval": {"every_epochs": 2}, "checkpoint": {"best_metric": "mean_iou"}}
    (folder / "config.json").write_text(json.dumps(config))
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    for name, values in (("validation", validation), ("metrics", metrics)):
        if values is not None:
            (folder / f"{name}.json").write_text(json.dumps(values))


def test_the_table_shows_progress_scores_times_and_why_runs_failed(tmp_path):
    validation = {"12": {"mean_iou": 0.5, "macro_f1": 0.25}, "24": {"mean_iou": 0.4, "macro_f1": 0.75}}
    write_run(tmp_path / "done", steps=(12, 24), validation=validation, metrics={"test/mean_iou": 0.625})
    say(tmp_path / "done", DONE, exit_code=0, seconds=3725)
    write_run(tmp_path / "going", epochs=20, steps=(12, 30), validation=validation)
    write_run(tmp_path / "young", validation={})
    write_run(tmp_path / "bad")
    status.write_job(tmp_path / "bad", JOB)
    say(tmp_path / "bad", FAILED, exit_code=1)
    (tmp_path / "bad" / "log.txt").write_text("before\n# job\n# command\n" + "".join(f"line {i}\n" for i in range(9)))
    write_run(tmp_path / "shot")
    say(tmp_path / "shot", STOPPED, exit_code=-9)
    states = {"done": DONE, "going": RUNNING, "young": RUNNING, "bad": FAILED, "shot": STOPPED, "none": QUEUED}
    lines = table.status_table(tmp_path, states)[0].splitlines()
    assert [line.split() for line in lines[:7]] == [
        [
            "run",
            "state",
            "epoch",
            "step",
            "scores",
            "of",
            "iou_gas",
            "mean_iou",
            "balanced_accuracy",
            "macro_f1",
            "time",
        ],
        ["done", "done", "4/4", "24", "test", "-", "0.625", "-", "-", "1:02:05"],
        ["going", "running", "4/20", "30", "val", "-", "0.500", "-", "0.250", "-"],  # the best so far, not the last
        ["young", "running", "-", "-", "-", "-", "-", "-", "-", "-"],
        ["bad", "failed", "-", "-", "-", "-", "-", "-", "-", "0:01:05"],
        ["shot", "stopped", "-", "-", "-", "-", "-", "-", "-", "0:01:05"],
        ["none", "queued", "-", "-", "-", "-", "-", "-", "-", "-"],
    ]
    assert len({len(line) for line in lines[:7]}) == 1
    assert lines[7:] == [
        "",
        f"bad failed with exit code 1; the end of {tmp_path}/bad/log.txt:",
        *(f"  line {i}" for i in range(5, 9)),
        "",
        "shot was killed by SIGKILL",
    ]


BAD = {
    "config.json": ["[]", '{"train": 3}', '{"train": {}}'],
    "validation.json": ["{", '{"12": 3}', '{"x": {}}'],
    "metrics.json": ["[1]", '{"test/mean_iou": "a"}'],
    "status.json": ["{", '{"state": "done"}', "[" * 100_000],
    "submitted.json": ["3", '{"backend": "local", "id": "1", "other": 1}'],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_one_damaged_file_does_not_hide_the_other_runs(name, text, tmp_path):
    validation = {"12": {"mean_iou": 0.5}, "24": {"mean_iou": 0.4}}
    for run in ("bad", "good"):
        write_run(tmp_path / run, steps=(12, 24), validation=validation)
        status.write_job(tmp_path / run, JOB)
        say(tmp_path / run, FAILED, exit_code=1)
    (tmp_path / "bad" / name).write_text(text)
    text, damaged = table.status_table(tmp_path, {"bad": FAILED, "good": FAILED})
    lines = text.splitlines()
    assert damaged == ["bad"]
    assert lines[1].split() == ["bad", "failed", *"--------"]
    assert lines[2].split()[:4] == ["good", "failed", "4/4", "24"]
    assert f"bad cannot be shown: {tmp_path}/bad" in "\n".join(lines)


def test_the_step_of_a_run_that_was_copied_without_checkpoints_is_that_of_its_scores(tmp_path):
    write_run(tmp_path / "run", validation={"8": {"mean_iou": 0.5}, "12": {"mean_iou": 0.25}})
    assert table.progress(tmp_path / "run") == ("4/4", "12")


def test_the_end_of_a_log_is_that_of_the_last_start(tmp_path):
    (tmp_path / "log.txt").write_text("# job 1\n# command\nbefore\n# job 2\n# command\nerror: after\n")
    assert status.log_tail(tmp_path, 4) == ["error: after"]


def test_a_local_job_lives_as_long_as_its_process_and_not_as_another_of_its_number():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    created = psutil.Process(process.pid).create_time()
    own, earlier = (
        Job("local", str(process.pid), (), began, socket.gethostname()) for began in (created, created - 3600)
    )
    elsewhere, gone = dataclasses.replace(own, host="elsewhere"), dataclasses.replace(own, id="999999999")
    states = {own: RUNNING, earlier: STOPPED, gone: STOPPED, elsewhere: None}
    assert local.states(list(states)) == states
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but nobody has asked how it ended
    assert local.states([own]) == {own: STOPPED}
    process.wait()
    assert local.states([own]) == {own: STOPPED}


@pytest.mark.parametrize(
    "gpus, parallel, expected",
    [
        ([], None, [()]),
        ([], 3, [(), (), ()]),
        ([2, 3], None, [(2,), (3,)]),
        ([0, 1, 2, 3, 4], 2, [(0, 1), (2, 3)]),  # equally many each
        ([5], 1, [(5,)]),
    ],
)
def test_gpus_are_divided_equally_among_the_runs_at_once(gpus, parallel, expected):
    assert local.divide_gpus(gpus, parallel) == expected


def test_more_runs_at_once_than_gpus_are_refused():
    with pytest.raises(UserError, match="--parallel is 3; expected at most 2"):
        local.divide_gpus([0, 1], 3)


@pytest.mark.parametrize(
    "slots, busy, expected",
    [
        ([(0, 1), (2, 3)], [], [(0, 1), (2, 3)]),
        ([(0, 1), (2, 3)], [(2, 3)], [(0, 1)]),
        ([(0, 1), (2, 3)], [(1,)], [(2, 3)]),  # of an earlier start that divided them otherwise
        ([(0, 1), (2, 3)], [(1,), (2,)], []),
        ([(), (), ()], [()], [(), ()]),
        ([()], [(), ()], []),
    ],
)
def test_a_slot_is_free_while_no_run_has_its_gpus(slots, busy, expected):
    assert local.free_slots(slots, busy) == expected


def test_visible_gpus_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert local.visible_gpus(None) == [3, 5]
    assert local.visible_gpus(1) == [3]
    assert local.visible_gpus(0) == []
    for listed, gpus in (("0, 2", [0, 2]), ("-1", []), ("", []), ("1,-1,2", [1]), ("NoDevFiles", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
        assert local.visible_gpus(None) == gpus
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(UserError, match="--gpus is 3; this machine shows 2"):
        local.visible_gpus(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES is 'GPU-8932f937'; expected numbers"):
        local.visible_gpus(None)
