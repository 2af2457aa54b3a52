"""What is logged can be read back, once, whatever killed the run."""

import contextlib
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import jax
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from fume_jax.runtime.errors import UserError
from fume_jax.training.tensorboard import EventLog, read_scalars

ROOT = Path(__file__).parents[2]
EVERYTHING = {"scalars": 0, "images": 0, "tensors": 0}
TENSORBOARD = [str(Path(sys.executable).parent / "tensorboard"), "--reload_interval=1"]
TENSORBOARD += ["--samples_per_plugin=scalars=1000,images=1000,pr_curves=1000,text=1000"]

# A run as a process: takes steps START + 1 .. STOP; the loss tells which attempt logged it.
RUN = """
import os, signal, sys
import numpy as np
from fume_jax.training.tensorboard import EventLog, read_scalars

workdir, start, stop, attempt, end, project = sys.argv[1:]
start, stop, attempt = int(start), int(stop), int(attempt)
monitor = EventLog(workdir, start_step=start, wandb=project or None)
monitor.text("config", "text")
monitor.hparams({"rate": 0.1, "fusion": None}, ["train/loss"])
for step in range(start + 1, stop + 1):
    monitor.scalars(step, "train", {"loss": 1000 * attempt + step})
    if step % 20 == 0:
        monitor.image(step, "val/picture", np.full((4, 6, 3), step % 256, np.uint8))
        monitor.pr_curves(step, "val", np.array([0, 1, 2]), np.eye(3))
if end == "kill":
    monitor.flush()
    os.kill(os.getpid(), signal.SIGKILL)
monitor.close()
"""


def run(workdir, start, stop, attempt=0, end="close", project="", **environment):
    """Runs the above; returns what it printed."""
    result = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, (workdir, start, stop, attempt, end, project))],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == (-signal.SIGKILL if end == "kill" else 0), result.stdout
    return result.stdout


def logged(workdir):
    """All events of a run folder, as TensorBoard's own Python reader has them."""
    return EventAccumulator(str(workdir / "events"), EVERYTHING, purge_orphaned_data=False).Reload()


def load(path):
    return LegacyEventFileLoader(str(path)).Load()


def loss_of(events):
    return [(e.step, e.value) for e in events.Scalars("train/loss")]


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def dashboard(logdir, *flags):
    """Starts TensorBoard; yields what asks it, with a path and the body of a POST or the fields of a query."""
    port = free_port()
    process = subprocess.Popen(
        [*TENSORBOARD, f"--logdir={logdir}", f"--port={port}", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(path, body=None, **query):
        url = f"http://localhost:{port}/data/plugin/{path}?{urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=10))

    try:
        wait_until(lambda: ask("scalars/tags"))
        yield ask
    finally:
        process.terminate()
        process.wait()


def wait_until(true, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if true():
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_what_was_flushed_outlives_a_kill(tmp_path):
    run(tmp_path, 0, 500, end="kill")
    assert loss_of(logged(tmp_path)) == [(step, step) for step in range(1, 501)]


@pytest.mark.parametrize(
    "starts, loss",
    [
        ([60], {0: range(1, 61), 1: range(61, 151)}),
        ([0], {1: range(1, 151)}),
        pytest.param([60, 60], {0: range(1, 61), 2: range(61, 151)}, marks=pytest.mark.slow),
        pytest.param([60, 100], {0: range(1, 61), 1: range(61, 101), 2: range(101, 151)}, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_killed_run_has_every_entry_once(tmp_path, starts, loss):
    run(tmp_path, 0, 100, attempt=0, end="kill")
    for attempt, start in enumerate(starts, 1):
        last = attempt == len(starts)
        run(tmp_path, start, 150 if last else 120, attempt=attempt, end="close" if last else "kill")
    events = logged(tmp_path)
    assert loss_of(events) == [(step, 1000 * attempt + step) for attempt in loss for step in loss[attempt]]
    assert [e.step for e in events.Images("val/picture")] == [20, 40, 60, 80, 100, 120, 140]
    assert [e.step for e in events.Tensors("val/Transitional")] == [20, 40, 60, 80, 100, 120, 140]
    assert [e.step for e in events.Tensors("config/text_summary")] == [0]
    tags = [v.tag for p in (tmp_path / "events").iterdir() for e in load(p) for v in e.summary.value]
    assert tags.count("_hparams_/session_start_info") == 1


def log_losses(workdir, steps):
    """The file of a log with a scalar a step, which equals the step."""
    monitor = EventLog(workdir, start_step=0)
    for step in range(1, steps + 1):
        monitor.scalars(step, "train", {"loss": step})
    monitor.close()
    (path,) = (workdir / "events").iterdir()
    return path


@pytest.mark.parametrize("garbage", [b"", bytes(64), 64 * b"\xff"], ids=["torn", "zeros", "ones"])
@pytest.mark.parametrize("lost, left", [(0, 5), (1, 4), (4, 4), (5, 4), (30, 4), (60, 3)])
def test_a_torn_tail_is_cut_off(tmp_path, lost, left, garbage):
    path = log_losses(tmp_path, steps=5)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - lost] + garbage)
    warnings = []
    EventLog(tmp_path, start_step=5, warn=warnings.append).close()
    assert whole.startswith(path.read_bytes())
    assert loss_of(logged(tmp_path)) == [(step, step) for step in range(1, left + 1)]
    assert len(warnings) == (garbage == 64 * b"\xff")  # nothing that a crash leaves


def test_a_log_that_is_damaged_in_the_middle_is_kept_and_told(tmp_path):
    path = log_losses(tmp_path, steps=100)
    whole = path.read_bytes()
    record = len(whole) // 101  # about
    for place in (50 * record + shift for shift in range(record)):  # each byte of a record, in turn
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        damaged, warnings = path.read_bytes(), []
        steps, _ = read_scalars(tmp_path, warnings.append)["train/loss"]
        assert 45 < len(steps) < 55
        assert len(warnings) == 1 and f"{path} is damaged after" in warnings[0]
        EventLog(tmp_path, start_step=100, warn=warnings.append).close()
        assert len(warnings) == 2 and f"{path} is damaged after" in warnings[1]
        (copy,) = (tmp_path / "events").glob("*.damaged.*")
        assert copy.read_bytes() == damaged
        assert f"{copy} keeps" in warnings[1]
        assert [step for step, _ in loss_of(logged(tmp_path))] == steps
        for other in set((tmp_path / "events").iterdir()) - {path}:
            other.unlink()


def test_what_followed_the_last_checkpoint_is_logged_once(tmp_path):
    """The test split is scored after the checkpoint of the last step is saved, and again by the same command."""
    for _ in range(3):
        monitor = EventLog(tmp_path, start_step=70)
        monitor.scalars(70, "test", {"accuracy": 0.5})
        monitor.close()
    assert [(e.step, e.value) for e in logged(tmp_path).Scalars("test/accuracy")] == [(70, 0.5)]


def test_a_metric_without_meaning_is_left_out(tmp_path):
    monitor = EventLog(tmp_path, start_step=0)
    monitor.scalars(1, "val", {"iou": math.nan, "dice": np.float32(0.5)})
    monitor.close()
    assert logged(tmp_path).Tags()["scalars"] == ["val/dice"]


def test_only_the_first_process_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monitor = EventLog(tmp_path / "run", start_step=0, wandb="nobody")
    monitor.scalars(1, "train", {"loss": 1.0})
    monitor.hparams({"rate": 0.1}, [])
    monitor.flush()
    monitor.close()
    assert not (tmp_path / "run").exists()


def test_events_reach_the_disk_without_a_flush_after_a_while(tmp_path, monkeypatch):
    monitor = EventLog(tmp_path, start_step=0)
    monitor.scalars(1, "train", {"loss": 1.0})
    assert "train/loss" not in logged(tmp_path).Tags()["scalars"]
    monkeypatch.setattr("fume_jax.training.tensorboard.FLUSH_SECONDS", 0.0)
    monitor.scalars(2, "train", {"loss": 1.0})
    assert len(loss_of(logged(tmp_path))) == 2
    monitor.close()


def test_pr_curves_are_of_each_class_against_the_others(tmp_path):
    labels = np.array([0, 0, 1, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    monitor = EventLog(tmp_path, start_step=0)
    monitor.pr_curves(3, "val", labels, probabilities)
    monitor.close()
    events = logged(tmp_path)
    at_half = {}
    for name in ("Healthy", "Transitional", "Acidotic"):
        (event,) = events.Tensors(f"val/{name}")
        curve = np.array(event.tensor_proto.float_val).reshape(6, -1)  # rows: tp, fp, tn, fn, precision, recall
        at_half[name] = curve[:, curve.shape[1] // 2].tolist()
    assert at_half == {
        "Healthy": [1, 1, 1, 1, 0.5, 0.5],
        "Transitional": [0, 1, 2, 1, 0, 0],
        "Acidotic": [1, 0, 3, 0, 1, 1],
    }


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--load_fast=false"]], ids=["default", "python reader"])
def test_the_dashboard_shows_every_step_once_also_if_it_was_running(tmp_path, flags):
    def steps(ask):
        run_and = {"run": "run/events"}
        return {
            "scalars": [(e[1], e[2]) for e in ask("scalars/scalars", tag="train/loss", **run_and)],
            "images": [e["step"] for e in ask("images/images", tag="val/picture", sample=0, **run_and)],
            "pr_curves": [e["step"] for e in ask("pr_curves/pr_curves", tag="val/Healthy", **run_and)["run/events"]],
            "text": [e["step"] for e in ask("text/text", tag="config/text_summary", **run_and)],
        }

    for start in (60, 0):
        logdir = tmp_path / str(start)
        run(logdir / "run", 0, 100, end="kill")
        with dashboard(logdir, *flags) as running:
            wait_until(lambda ask=running: len(steps(ask)["scalars"]) == 100)
            run(logdir / "run", start, 150, attempt=1)
            expected = {
                "scalars": [(step, step + 1000 * (step > start)) for step in range(1, 151)],
                "images": [20, 40, 60, 80, 100, 120, 140],
                "pr_curves": [20, 40, 60, 80, 100, 120, 140],
                "text": [0],
            }
            wait_until(lambda ask=running: len(steps(ask)["pr_curves"]) >= 7 and steps(ask)["scalars"][-1][0] == 150)
            assert steps(running) == expected
        with dashboard(logdir, *flags) as fresh:
            wait_until(lambda ask=fresh: steps(ask)["scalars"])
            assert steps(fresh) == expected


@pytest.mark.parametrize("flags", [[], ["--load_fast=false"]], ids=["default", "python reader"])
def test_runs_are_compared_in_one_table(tmp_path, flags):
    for name, fusion, accuracy in (("base", None, 0.75), ("add", "add", 0.5)):
        for start in (0, 5, 5):  # started again twice
            monitor = EventLog(tmp_path / name, start_step=start)
            monitor.hparams({"fusion": fusion, "rate": 0.1, "alpha": (1.0, 8.0), "seed": 3}, ["test/accuracy"])
            monitor.scalars(5, "test", {"accuracy": accuracy})
            monitor.close()
    with dashboard(tmp_path, *flags) as ask:
        statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
        body = {"colParams": [], "startIndex": 0, "sliceSize": 100, "allowedStatuses": statuses}
        wait_until(lambda: sum(map(len, ask("scalars/tags").values())) == 2)
        experiment = ask("hparams/experiment", body={})
        groups = ask("hparams/session_groups", body=body)["sessionGroups"]
    assert {h["name"] for h in experiment["hparamInfos"]} == {"fusion", "rate", "alpha", "seed"}
    assert [m["name"]["tag"] for m in experiment["metricInfos"]] == ["test/accuracy"]
    assert [len(g["sessions"]) for g in groups] == [1, 1]
    rows = {g["name"]: (g["hparams"], [m["value"] for m in g["metricValues"]]) for g in groups}
    same = {"rate": 0.1, "alpha": "(1.0, 8.0)", "seed": 3.0}
    assert rows == {
        "base/events": (same | {"fusion": "None"}, [0.75]),
        "add/events": (same | {"fusion": "add"}, [0.5]),
    }


def wandb_records(path):
    """Records of a `.wandb` file: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, record = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left_in_block = 32768 - position % 32768
        if left_in_block < 7:
            position += left_in_block
            continue
        _, size, kind = struct.unpack_from("<IHB", data, position)
        record += data[position + 7 : position + 7 + size]
        position += 7 + size
        if kind in (1, 4):  # a whole record, the last part of one
            yield Record.FromString(record)
            record = b""


@pytest.mark.slow
def test_wandb_mirrors_a_run_offline_in_silence(tmp_path):
    with socket.create_server(("localhost", 0)) as server:
        offline = {"WANDB_MODE": "offline", "WANDB_BASE_URL": f"http://localhost:{server.getsockname()[1]}"}
        offline["WANDB_API_KEY"] = 40 * "0"
        workdir = tmp_path / "run"
        assert run(workdir, 0, 15, end="kill", project="plumes", **offline) == ""
        assert run(workdir, 10, 20, attempt=1, project="plumes", **offline) == ""
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody called
            server.accept()
    run_id = (workdir / "wandb_id").read_text()
    *_, path = sorted(workdir.glob("wandb/offline-run-*/*.wandb"))
    assert [p.name for p in workdir.glob("wandb/offline-run-*/*.wandb")] == [f"run-{run_id}.wandb"] * 2
    records = list(wandb_records(path))
    (about,) = (r.run for r in records if r.HasField("run"))
    assert (about.run_id, about.project, about.display_name) == (run_id, "plumes", "run")
    config = {i.key or i.nested_key[0]: json.loads(i.value_json) for r in records for i in r.config.update}
    assert config["rate"] == 0.1 and config["fusion"] == "None"
    history = [
        {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
        for r in records
        if r.HasField("history")
    ]
    assert [(row["_step"], row["train/loss"]) for row in history] == [(step, 1000 + step) for step in range(11, 21)]
    assert history[-1]["val/picture/_type"] == "image-file" and history[-1]["val/picture/width"] == 6
    assert (path.parent / "files" / history[-1]["val/picture/path"]).is_file()
    assert loss_of(logged(workdir))[-1] == (20, 1020)


def test_wandb_that_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r'pip install -e "\.\[wandb\]"'):
        EventLog(tmp_path, start_step=0, wandb="plumes")


def test_wandb_without_a_login_is_told_and_leaves_the_events_alone(tmp_path):
    EventLog(tmp_path, start_step=0).close()
    before = {p: p.read_bytes() for p in (tmp_path / "events").iterdir()}
    environment = {"WANDB_MODE": "online", "WANDB_API_KEY": "", "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    with pytest.raises(AssertionError, match=r"UserError: Weights & Biases: .*wandb login"):
        run(tmp_path, 0, 5, project="plumes", **environment)
    assert {p: p.read_bytes() for p in (tmp_path / "events").iterdir()} == before


def test_a_run_that_starts_anew_leaves_nothing_of_an_earlier_start(tmp_path):
    for start_step, rate in ((None, "0.1"), (None, "0.2"), (0, "0.3")):
        with contextlib.closing(EventLog(tmp_path, start_step=start_step)) as monitor:
            monitor.text("config", rate)
            monitor.hparams({"rate": rate}, ["test/loss"])
    texts = EventAccumulator(str(tmp_path / "events"), EVERYTHING).Reload().Tensors("config/text_summary")
    assert [event.tensor_proto.string_val[0] for event in texts] == [b"0.2"]
