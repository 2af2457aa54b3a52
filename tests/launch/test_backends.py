"""Scripts for Slurm and tasks for SkyPilot, by their own tools, and jobs that are asked to end."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import submitit
import yaml

from fume_jax.data.recording_list import Recording
from fume_jax.runtime.errors import UserError
from launch import status
from launch.job import CommandJob
from launch.plan import Run
from launch.shares import divide
from launch.slurm import Slurm, states
from tests.commands import ROOT

RUNS = [Run(f"rate_{rate}-seed_0", "demo", {"optimizer.learning_rate": rate}) for rate in (0.001, 0.003)]

# Saves when it is told to end, and is done the second time.
COMMAND = """
import pathlib, signal, sys, time
begun = pathlib.Path(sys.argv[1])
def save(*_):
    print("saved", flush=True)
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
if begun.exists():
    sys.exit(0)
begun.touch()
print("begun", flush=True)
time.sleep(60)
"""


def slurm(workdir, **changes):
    values = {"nodes": 1, "gpus": 1, "minutes": 60, "parallel": None, "options": {}} | changes
    return Slurm(workdir, **values)


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """A folder in which programs of Slurm's names leave what they were given."""
    folder = tmp_path / "bin"
    folder.mkdir()
    table = "JobID|State|NodeList\\n77_0|RUNNING|a\\n77_1|PENDING|\\n77_1.batch|FAILED|\\n"
    programs = {
        "srun": "exit 1",
        "sbatch": f'cp "$1" {folder}/script; echo Submitted batch job 77',
        "scontrol": f'echo "$@" > {folder}/requeued',
        "sacct": f"printf '{table}'",
    }
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def sbatch_options(script):
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", script, re.MULTILINE))


def test_the_script_asks_slurm_for_what_was_asked_of_the_command(tmp_path):
    options = {"partition": "gpu", "account": "lab", "mem": "64GB"}
    script = slurm(tmp_path, nodes=2, gpus=4, minutes=720, parallel=3, options=options).preview(RUNS)
    asked = sbatch_options(script)
    assert (
        asked
        | {
            "nodes": "2",
            "gpus-per-node": "4",
            "ntasks-per-node": "4",  # a process for each GPU, as jax.distributed.initialize takes it
            "time": "720",
            "array": "0-1%2",
            "partition": "gpu",
            "account": "lab",
            "mem": "64GB",
            "requeue": "",
            "signal": "USR2@180",
            "open-mode": "append",
        }
        == asked
    )
    assert sbatch_options(slurm(tmp_path, parallel=1).preview(RUNS))["array"] == "0-1%1"
    assert "array" not in sbatch_options(slurm(tmp_path).preview(RUNS[:1]))
    assert script.count("--config.optimizer.learning_rate=0.003 ") == 1
    assert script.count("--platform=gpu") == 2
    assert "--platform" not in slurm(tmp_path, gpus=0).preview(RUNS)
    assert not list(tmp_path.iterdir())


def test_an_option_that_sbatch_has_not_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--slurm has partion; expected some of .*partition"):
        slurm(tmp_path, options={"partion": "gpu"})


def test_runs_are_submitted_as_one_array_by_the_script_that_was_shown(tmp_path, fake_slurm):
    workdir = tmp_path / "sweep"
    engine = slurm(workdir, nodes=2, parallel=2)
    shown = engine.preview(RUNS)
    engine.launch(RUNS, running=(), stop=None)
    assert shown.startswith((fake_slurm / "script").read_text().rstrip())
    jobs = [status.read_job(workdir / run.name) for run in RUNS]
    assert jobs == [status.Job("slurm", "77_0"), status.Job("slurm", "77_1")]
    for job, run in zip(jobs, RUNS, strict=True):
        submitted = submitit.SlurmJob(workdir / ".submitit", job.id).submission().function
        assert submitted._command[1:3] == ["-m", "fume_jax.main"]
        assert submitted._command[3:-1] == [*run.config_arguments, f"--workdir={workdir / run.name}"]
        assert submitted._workdir == workdir / run.name
    assert list(states([*jobs, status.Job("slurm", "78")]).values()) == ["running", "queued", None]


def test_what_sbatch_says_against_it_is_passed_on(tmp_path, fake_slurm):
    (fake_slurm / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2; exit 1\n")
    with pytest.raises(UserError, match=r"sbatch refused: .*invalid partition"):
        slurm(tmp_path / "sweep").launch(RUNS, running=(), stop=None)
    assert status.read_job(tmp_path / "sweep" / RUNS[0].name) is None


def test_without_slurm_the_message_says_where_to_start(tmp_path):
    with pytest.raises(UserError, match="starts from a node that has sbatch and srun"):
        slurm(tmp_path).launch(RUNS, running=(), stop=None)


@pytest.fixture
def slurm_job(tmp_path, fake_slurm):
    """A task of a Slurm job whose command has begun: its process, and the folder of its run."""
    workdir, folder = tmp_path / "run", tmp_path / "submitit"
    folder.mkdir()
    workdir.mkdir()
    job = CommandJob([sys.executable, "-c", COMMAND, str(tmp_path / "begun")], workdir)
    submission = submitit.helpers.DelayedSubmission(job)
    submission.set_timeout(600, 5)
    submission.dump(folder / "77_0_submitted.pkl")
    slurm = {"JOB_ID": "78", "ARRAY_JOB_ID": "77", "ARRAY_TASK_ID": "0", "NTASKS": "1", "PROCID": "0"}
    environment = (
        os.environ | {f"SLURM_{name}": value for name, value in slurm.items()} | {"SUBMITIT_EXECUTOR": "slurm"}
    )
    command = [sys.executable, "-m", "submitit.core._submit", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    wait_for(lambda: (tmp_path / "begun").exists() and "begun" in (workdir / "log.txt").read_text())
    yield process, workdir
    process.kill()
    process.wait()


def wait_for(condition, seconds=60):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "waited in vain"
        time.sleep(0.05)


def test_a_job_that_is_about_to_be_preempted_saves_and_goes_back_into_the_queue(slurm_job, fake_slurm):
    process, workdir = slurm_job
    assert status.read_status(workdir).state == "running"
    assert status.read_status(workdir).job == "77_0"
    process.send_signal(signal.SIGUSR2)
    process.wait(timeout=60)
    said = status.read_status(workdir)
    assert (said.state, said.exit_code) == ("stopped", 75)
    assert "saved" in (workdir / "log.txt").read_text()
    assert (fake_slurm / "requeued").read_text() == "requeue 77_0\n"


def test_a_job_that_slurm_terminates_saves_and_leaves_it_to_slurm_what_comes_then(slurm_job, fake_slurm):
    process, workdir = slurm_job
    process.terminate()
    wait_for(lambda: status.read_status(workdir).state == "stopped")
    # A job that had ended would not be put back by Slurm; one that was cancelled must not put itself back.
    time.sleep(0.5)
    assert process.poll() is None
    assert not (fake_slurm / "requeued").exists()


@pytest.mark.slow
def test_a_job_whose_time_is_up_goes_on_where_it_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    executor = submitit.LocalExecutor(tmp_path / "submitit")
    executor.update_parameters(timeout_min=0.5, signal_delay_s=24)  # told after six seconds
    (tmp_path / "run").mkdir()
    job = executor.submit(CommandJob([sys.executable, "-c", COMMAND, str(tmp_path / "begun")], tmp_path / "run"))
    assert job.result() == 0
    said, log = status.read_status(tmp_path / "run"), (tmp_path / "run" / "log.txt").read_text()
    assert (said.state, said.exit_code) == ("done", 0)
    assert said.seconds > 1  # those before the stop
    assert log.count("# ") == 4
    assert log.index("begun\n") < log.index("saved\n")


@pytest.mark.parametrize(
    "code, expected",
    [("0", ("done", 0)), ("75", ("stopped", 75)), ("1", ("failed", 1)), ("kill", ("stopped", -9))],
)
def test_what_a_command_ends_with_is_the_state_of_its_run(code, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "5")
    end = "os.kill(os.getpid(), 9)" if code == "kill" else f"os._exit({code})"
    previous = signal.getsignal(signal.SIGTERM)
    try:
        CommandJob([sys.executable, "-c", f"import os; print('words', flush=True); {end}"], tmp_path)()
    finally:
        signal.signal(signal.SIGTERM, previous)
    said = status.read_status(tmp_path)
    assert (said.state, said.exit_code, said.job) == (*expected, "5")
    assert status.log_tail(tmp_path, 1) == ["words"]


@pytest.fixture
def cloud():
    from launch import cloud  # which takes seconds

    return cloud


def tpu(cloud, workdir, **changes):
    values = {"name": workdir.name, "bucket": "gs://fume", "accelerator": "tpu-v5litepod-16"}
    values |= {"infra": "gcp/us-west4", "spot": True} | changes
    return cloud.Cloud(workdir, **values)


def test_skypilot_reads_the_tasks_as_they_are_meant(cloud, tmp_path):
    import sky

    shown = tpu(cloud, tmp_path / "rates").preview(RUNS)
    path = tmp_path / "rates" / "tasks" / "rate_0.001-seed_0.yaml"
    assert f"{path}: " in shown
    task = sky.Task.from_yaml(str(path))
    (resources,) = task.resources
    assert task.name == "rates-rate_0.001-seed_0"
    assert resources.accelerators == {"tpu-v5litepod-16": 1}
    assert resources.accelerator_args["runtime_version"] == "v2-alpha-tpuv5-lite"
    assert (resources.use_spot, resources.region) == (True, "us-west4")
    assert resources.job_recovery["recover_on_exit_codes"] == [75]
    assert task.file_mounts == {"/fume/data": "gs://fume/data"}
    assert task.storage_mounts["/fume/bucket"].source == "gs://fume"
    assert task.storage_mounts["/fume/bucket"].mode.value == "MOUNT"
    assert "\nln -sfn /fume/data data\nmkdir -p /fume/bucket/runs\nln -sfn /fume/bucket/runs runs\n" in task.setup
    assert "'.[tpu]'" in task.setup
    assert task.run == (
        "~/fume/bin/python -m fume_jax.main --config=demo --config.optimizer.learning_rate=0.001 "
        "--workdir=/fume/bucket/runs/rates/rate_0.001-seed_0 --platform=tpu\n"
    )


def test_gpus_of_a_cloud_are_asked_for_as_such(cloud, tmp_path):
    task = tpu(cloud, tmp_path, accelerator="H100:8", infra=None, spot=False).task(RUNS[0])
    assert task["resources"]["accelerators"] == "H100:8"
    assert not {"accelerator_args", "infra"} & task["resources"].keys()
    assert task["resources"]["use_spot"] is False
    assert "'.[cuda12]'" in task["setup"]
    assert task["run"].endswith("--platform=gpu\n")


def test_shares_find_in_the_bucket_what_the_checkout_has_here(cloud, tmp_path):
    import sky

    recordings = [Recording(name, co2=f"recordings/{name}.seq") for name in ("a", "b", "c")]
    options = ["--batch_size", "4", "--workdir", "runs/my demo"]
    shares = divide("recordings/list.csv", "predictions/spring", recordings, 2, options)
    tpu(cloud, tmp_path / ".shares", name="spring", accelerator="tpu-v5litepod-1").preview(shares)
    task = sky.Task.from_yaml(str(tmp_path / ".shares" / "tasks" / "1-of-2.yaml"))
    assert task.name == "spring-1-of-2"
    assert task.storage_mounts.keys() == {"/fume/bucket"} and not task.file_mounts
    assert "'.[tpu,camera,onnx]'" in task.setup
    assert task.run == (
        "~/fume/bin/python -m fume_jax.predict --recordings=recordings/list.csv --output=predictions/spring "
        "--share=1/2 --batch_size 4 --workdir 'runs/my demo'\n"
    )

    # What the setup does before it installs: at first the bucket has the list alone, then the model too.
    bucket, checkout = tmp_path / "bucket", tmp_path / "checkout"
    (bucket / "recordings").mkdir(parents=True)
    (bucket / "recordings" / "list.csv").touch()
    checkout.mkdir()
    setup = task.setup.partition("pip install")[0].replace("/fume/bucket", str(bucket))
    result = subprocess.run(["sh", "-c", setup], cwd=checkout, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "error: there is no gs://fume/runs/my demo\n")
    (bucket / "runs" / "my demo").mkdir(parents=True)
    subprocess.run(["sh", "-c", setup], cwd=checkout, check=True)
    assert (checkout / "runs" / "my demo").is_dir()
    (checkout / "predictions" / "spring").mkdir()
    assert (bucket / "predictions" / "spring").is_dir()


def test_commands_of_a_task_are_written_as_one_types_them(cloud, tmp_path):
    tpu(cloud, tmp_path).preview(RUNS)
    text = (tmp_path / "tasks" / "rate_0.001-seed_0.yaml").read_text()
    assert "setup: |\n  set -e\n" in text
    assert yaml.safe_load(text) == tpu(cloud, tmp_path).task(RUNS[0])


@pytest.mark.parametrize(
    "folder, changes, words",
    [
        ("my sweep", {}, "Invalid task name my sweep-rate"),
        ("rates", {"infra": "gpc/us-west4"}, "'gpc/us-west4' does not match"),
        ("rates", {"accelerator": "H100:x"}, "Found: 'H100:x'"),
        ("rates", {"bucket": "fume"}, "--bucket is fume; expected an address such as gs://fume"),
    ],
)
def test_what_skypilot_does_not_take_is_refused(folder, changes, words, cloud, tmp_path):
    with pytest.raises(UserError, match=words):
        tpu(cloud, tmp_path / folder, **changes).preview(RUNS)


def test_states_of_managed_jobs_are_those_that_skypilot_says(cloud, monkeypatch):
    import sky

    said = {1: "PENDING", 2: "RECOVERING", 3: "SUCCEEDED", 4: "FAILED_SETUP", 5: "CANCELLED"}
    records = [{"job_id": number, "status": sky.ManagedJobStatus(name)} for number, name in said.items()]
    monkeypatch.setattr(sky.jobs, "queue_v2", lambda refresh, job_ids: [r for r in records if r["job_id"] in job_ids])
    monkeypatch.setattr(sky, "get", lambda request: (request, len(request), {}, 0))
    jobs = [status.Job("cloud", str(number)) for number in (*said, 6)]
    assert list(cloud.states(jobs).values()) == ["queued", "running", "done", "failed", "stopped", None]
