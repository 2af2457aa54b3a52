"""What would end a run late and badly is refused early, or said in plain words: real locks, disks and allocations."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import psutil
import pytest

from fume_jax.runtime import preflight
from fume_jax.runtime.console import Console
from fume_jax.runtime.errors import UserError
from fume_jax.runtime.files import full_disk
from tests.commands import environment, start, train_arguments

ROOT = Path(__file__).parents[2]
STEP = {"batch_size": 8, "height": 120, "width": 160}


def on_small_disk(folder, size, *commands):
    """Runs shell commands where `folder` is a disk of that size, which only they see; the last one's exit code."""
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size={size} tmpfs {folder}"
    if not shutil.which("unshare") or subprocess.run([*own, mount], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    script = " ; ".join([mount, f"cd {ROOT}", *commands])
    return subprocess.run([*own, script], capture_output=True, text=True, timeout=300)


# --- one run a folder ---


@contextlib.contextmanager
def training_elsewhere(workdir):
    """A process that holds the lock of a run folder, with a child of its own that outlives it."""
    code = """
        import subprocess, sys, time
        from fume_jax.runtime.preflight import run_lock
        with run_lock(sys.argv[1]):
            child = subprocess.Popen(["sleep", "60"])
            print(child.pid, flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(workdir)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            yield process
        finally:
            os.kill(child, signal.SIGKILL)
            process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path):
    with training_elsewhere(tmp_path / "new" / "run") as process:
        with (
            pytest.raises(UserError, match=r"Another process is training in .*run; .* another --workdir\."),
            preflight.run_lock(tmp_path / "new" / "run"),
        ):
            pass
        with preflight.run_lock(tmp_path / "other"):
            pass
        process.kill()
        process.wait()
        with preflight.run_lock(tmp_path / "new" / "run"):
            pass


def test_a_run_that_ends_in_an_error_frees_its_folder(tmp_path):
    with pytest.raises(ZeroDivisionError), preflight.run_lock(tmp_path):
        _ = 1 / 0
    with preflight.run_lock(tmp_path), pytest.raises(UserError), preflight.run_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file"), preflight.run_lock(tmp_path / "file" / "run"):
        pass
    # A disk that can only be read, which holds for root too.
    lock = (
        f"{sys.executable} -c 'from fume_jax.runtime.preflight import run_lock; run_lock(\"{tmp_path}\").__enter__()'"
    )
    result = on_small_disk(tmp_path, "1m,ro", lock)
    assert f"{tmp_path} cannot be written: no permission to write to {tmp_path}" in result.stderr


# --- disks ---


def test_a_disk_without_room_is_refused_before_anything_is_written(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    preflight.check_free_space(tmp_path / "not" / "yet", free / 2, "A dataset")
    with pytest.raises(UserError) as error:
        preflight.check_free_space(tmp_path / "not" / "yet", free + 5e9, "A dataset")
    assert f"A dataset needs about {(free + 5e9) / 1e9:.1f} GB of disk, and {tmp_path} has " in str(error.value)
    assert not (tmp_path / "not").exists()


def command(module, *arguments):
    return " ".join([sys.executable, "-m", module, *map(str, arguments)])


def files_of(printed):
    return printed.partition("FILES")[2].partition("END")[0].split()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filled", "words"),
    [
        ("", ["A dataset of 48 pairs needs about 3.2 MB of disk", "Free some, or choose a folder on another disk"]),
        # The check is passed, and then somebody else fills the disk.
        (
            "(until ls {0}/synthetic_ogi/*/incomplete.*/*.array_record* ; do sleep 0.05 ; done ;"
            " head -c 20M /dev/zero > {0}/other) > /dev/null 2>&1 & ",
            ["The disk is full", "the dataset could not be written to", "run the same command again"],
        ),
    ],
    ids=["before", "during"],
)
def test_a_dataset_that_does_not_fit_leaves_nothing_that_is_taken_for_one(tmp_path, filled, words):
    render = command("datasets.synthetic_ogi", f"--data-dir={tmp_path}", "--name=tiny", "--height=210", "--width=265")
    listing = f"echo FILES ; find {tmp_path}/synthetic_ogi -type f -path '*tiny*' ! -name '*.lock' ; echo END"
    more = f"rm -f {tmp_path}/other ; mount -o remount,size=60m {tmp_path}"
    result = on_small_disk(
        tmp_path,
        "6m" if filled else "2m",
        filled.format(tmp_path) + f"{render} ; echo code $?",
        listing,
        more,
        render,
    )
    assert "code 1" in result.stdout
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.stderr
    assert files_of(result.stdout) == []
    assert result.returncode == 0 and "train      24 pairs" in result.stdout, result.stderr


@pytest.mark.slow
def test_recordings_that_do_not_fit_are_refused_before_any_is_stored(tmp_path):
    source, data = tmp_path / "source", tmp_path / "data"
    data.mkdir()
    size = ["--recordings=30", "--copies=4", "--height=48", "--width=64"]
    subprocess.run(
        [sys.executable, "-m", "datasets.fume_ogi.example", f"--output={source}", *size], cwd=ROOT, check=True
    )
    prepare = command(
        "datasets.fume_ogi", f"--source={source}", f"--data-dir={data}", f"--report={tmp_path}/faults.csv"
    )
    more = f"mount -o remount,size=20m {data}"
    result = on_small_disk(data, "100k", f"{prepare} ; echo code $?", f"ls -A {data}/fume_ogi/original*", more, prepare)
    assert "code 1" in result.stdout and "error: A dataset of" in result.stderr and "Traceback" not in result.stderr
    assert result.returncode == 0 and "The dataset is ready" in result.stdout, result.stderr


def with_file_limit(kilobytes, module, *arguments):
    """The finished process of a command that may write no larger file, which needs no right to mount a disk."""
    words = [sys.executable, "-m", "tests.tiny", module, *map(str, arguments)]
    script = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *words]
    return subprocess.run(script, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_dataset_that_cannot_be_written_to_its_end_is_not_taken_for_one(tmp_path):
    result = with_file_limit(300, "datasets.synthetic_ogi", f"--data_dir={tmp_path}", "--name=tiny")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    for words in ("The disk is full (File too large)", "the dataset could not be written to", "run the same command"):
        assert words in result.stderr
    assert not list(tmp_path.rglob("dataset_info.json"))


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_leaves_the_last_one(tiny_dataset, tmp_path):
    arguments = train_arguments(tiny_dataset, tmp_path / "run")
    stopped = with_file_limit(20, "fume_jax.main", *arguments)
    assert stopped.returncode == 1, stopped.stderr
    *warnings, error = stopped.stderr.splitlines()
    assert error.startswith("error: The disk is full (File too large): a checkpoint could not be written")
    # Its programs are not kept either, unless the cache has them already.
    assert all(line.startswith("WARNING: a compiled program is not kept in ") for line in warnings)
    again = start("fume_jax.main", *arguments)
    while not again.stdout.readline().startswith("epoch 2 of 6"):
        assert again.poll() is None
    again.terminate()
    again.communicate()
    assert again.returncode == 75


def test_only_errors_about_space_are_said_to_be_so(tmp_path):
    for told in (OSError(28, "No space left on device"), RuntimeError("write() failed: No space left on device; at 7")):
        with (
            pytest.raises(UserError, match=r"The disk is full \(No space .*\): it could not be written"),
            full_disk("x", "it"),
        ):
            raise told
    with pytest.raises(FileNotFoundError), full_disk(tmp_path, "it"):
        (tmp_path / "missing").read_text()


# --- memory ---


def test_an_estimate_of_memory_warns_and_refuses_nothing(capsys):
    available = psutil.virtual_memory().available
    preflight.warn_of_host_memory(available / 4, Console())
    assert capsys.readouterr().out == ""
    preflight.warn_of_host_memory(available * 4, Console())
    printed = capsys.readouterr().out
    assert printed.startswith("WARNING: ") and "may need about" in printed
    for key in preflight.HOST_KEYS:
        assert f"--{key}" in printed


# As Linux shows them; in a container the path is the host's and only the mount itself is visible.
GROUPS = {
    "version 2, the group above is tighter": (
        "0::/slurm/job_7/step_0",
        {
            "slurm/job_7/step_0": {"memory.max": "max", "memory.current": "500", "memory.stat": "inactive_file 0"},
            "slurm/job_7": {"memory.max": "1000", "memory.current": "700", "memory.stat": "anon 1\ninactive_file 50"},
        },
        350,
    ),
    "version 1 in a container": (
        "9:name=systemd:/\n4:memory:/docker/0123\n0::/",
        {
            "memory": {
                "memory.limit_in_bytes": "1000",
                "memory.usage_in_bytes": "900",
                "memory.stat": "cache 300\ninactive_file 5\ntotal_inactive_file 200",
            }
        },
        300,
    ),
    "no limit": ("0::/", {"": {}}, float("inf")),
}


@pytest.mark.parametrize(("own", "groups", "room"), GROUPS.values(), ids=GROUPS)
def test_limits_of_containers_and_jobs_count(tmp_path, own, groups, room):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(own + "\n")
    for group, files in groups.items():
        (tmp_path / "sys/fs/cgroup" / group).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (tmp_path / "sys/fs/cgroup" / group / name).write_text(content + "\n")
    assert preflight._cgroup_room(tmp_path) == room


def test_a_batch_that_is_larger_than_the_machine_is_refused():
    preflight.check_batch_memory(**STEP)
    with pytest.raises(UserError, match=r"A batch of 100,000,000 pairs of 160x120 takes 307\d\d.* Lower --config"):
        preflight.check_batch_memory(**STEP | {"batch_size": 10**8})


def test_jax_out_of_memory_is_said_in_plain_words():
    with pytest.raises(UserError) as error, preflight.out_of_memory(**STEP):
        jax.jit(lambda: jnp.zeros(2**48))().block_until_ready()
    message = str(error.value)
    assert "Memory ran out with batches of 8 pairs of 160x120" in message and "allocating 1125899906842624" in message
    assert "Lower --config.train.batch_size, --config.data.height or --config.data.width, or take" in message
    assert "--config.train.gradient_accumulation_steps=2; in another --workdir" in message


def test_other_errors_of_jax_pass():
    def fail(x):
        raise ArithmeticError("of the callback")

    with pytest.raises(jax.errors.JaxRuntimeError, match="of the callback"), preflight.out_of_memory(**STEP):
        jax.jit(lambda x: jax.pure_callback(fail, x, x))(1.0).block_until_ready()


def test_memory_of_a_step_is_its_arguments_results_and_what_lies_between():
    def compiled(**options):
        # Sorting cannot be fused away: one array between argument and result, besides the two.
        step = jax.jit(lambda x: jnp.sort(x)[::-1] * 2, **options)
        return step.lower(jax.ShapeDtypeStruct((2**20,), jnp.float32)).compile()

    size = 4 * 2**20
    assert preflight.step_memory(compiled()) == pytest.approx(3 * size, rel=0.01)
    assert preflight.step_memory(compiled(donate_argnums=0)) == pytest.approx(2 * size, rel=0.01)
