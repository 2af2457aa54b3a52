"""Predicts a list of recordings in shares: `python -m launch.predict --recordings=LIST --output=DIR --shares=N`.

Each share is a `fume predict`, which takes the flags after `--`, such as `-- --workdir=runs/demo --save=overlays`. The
same command goes on with what is not done. `-- --help` shows these flags. See launch/README.md.
"""

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from absl import flags

from fume_jax.runtime import cli
from fume_jax.runtime.errors import DONE, PARTLY_DONE, UserError
from fume_jax.runtime.files import check_folder, lock
from fume_jax.runtime.preemption import StopRequest
from launch import engines, status

_RECORDINGS = flags.DEFINE_string("recordings", None, "List of recordings, as fume predict takes it.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the results of all shares to.", required=True)
_SHARES = flags.DEFINE_integer(
    "shares", None, "Number of shares, each of which one process predicts.", lower_bound=1, required=True
)
flags.adopt_module_key_flags(engines)
flags.set_default(engines.ACCELERATOR, "tpu-v5litepod-1")
_ONE_DEVICE = "a share has one GPU or TPU chip at most, so raise --shares instead."


def main(options: list[str]) -> int:
    """Predicts the list, or shows how far it is, with these arguments for each share; returns the exit code."""
    # Imported after the flags are parsed, so that --help and a mistake in a flag answer at once.
    from fume_jax.data.recording_list import read_recordings, unread_columns
    from fume_jax.inference.recordings import write_table
    from launch import shares as own

    _check_engine()
    on_cloud = engines.BACKEND.value in engines.CLOUDS
    output = _OUTPUT.value
    recordings, folder = read_recordings(_RECORDINGS.value), Path(output) / own.FOLDER
    shares = own.divide(_RECORDINGS.value, output, recordings, _SHARES.value, options)
    names = [share.name for share in shares]
    if engines.STATUS.value:
        text, damaged = own.shares_table(folder, shares, engines.find_states(folder, names))
        print(text, own.summary(output, recordings), sep="\n\n")
        if Path(output).is_dir():
            write_table(Path(output), recordings)
        _tell_copy(output)
        return PARTLY_DONE if damaged else DONE
    check_folder(output)
    own.check(shares[0])
    if on_cloud:
        own.check_places(shares[0], recordings)
    backend = engines.create_backend(folder, Path(output).absolute().name)
    if on_cloud and backend.devices > 1:
        raise UserError(f"--accelerator is {engines.ACCELERATOR.value}; {_ONE_DEVICE}")
    if engines.DRY_RUN.value:
        print(backend.preview(shares))
        return DONE
    for note in unread_columns(_RECORDINGS.value):
        print(f"note: {note}")
    with lock(folder, doing="launching", flag="--output"), StopRequest() as stop:
        busy = _find_busy(folder, names)
        for share in shares:
            # Results of a cloud are in the bucket, and here once they are copied.
            if share.name not in busy and (share.is_other(folder) or (not on_cloud and share.lacks_results())):
                status.forget_job(folder / share.name)
                share.write(folder)
        states = engines.launch(backend, shares, stop, "shares")
        write_table(Path(output), recordings)
    print(own.shares_table(folder, shares, states)[0], own.summary(output, recordings), sep="\n\n")
    _tell_copy(output)
    return own.exit_code(folder, states, stop.requested)


def _check_engine():
    """Raises UserError if the flags ask Slurm to start each share several times, for each GPU and node."""
    for flag in (engines.GPUS, engines.NODES) if engines.BACKEND.value == "slurm" else ():
        if (flag.value or 0) > 1:
            raise UserError(f"--{flag.name} is {flag.value}; {_ONE_DEVICE}")


def _tell_copy(output):
    """Says how the results of a cloud come to this machine, if the flags name the bucket."""
    if engines.BUCKET.value:
        folder = os.path.relpath(output)
        source = f"{engines.BUCKET.value.rstrip('/')}/{folder}"
        tools = {"gs": "gcloud storage rsync -r", "s3": "aws s3 sync"}
        tool = tools.get(source.partition("://")[0], "for example with rclone: copy")
        print("The results are in the bucket. Copy them here; --status then writes their table:")
        print(f"  {tool} {shlex.join((source, folder))}")


def _find_busy(folder, names):
    """Returns the shares that are on their way; UserError if they are of another number, but of the same recordings."""
    busy = set()
    for name, state in engines.find_states(folder, sorted(path.name for path in folder.glob("*-of-*"))).items():
        if state == status.RUNNING or (state == status.QUEUED and status.read_job(folder / name)):
            if name not in names:
                count = name.rpartition("-")[2]
                raise UserError(f"Share {name} is {state}. Wait for it, or stop it, or go on with --shares={count}.")
            busy.add(name)
    return busy


if __name__ == "__main__":
    words = sys.argv
    end = words.index("--") if "--" in words else len(words)
    sys.argv, options = words[:end], words[end + 1 :]
    if any(re.fullmatch(r"--?help\w*|-\?", option) for option in options):
        sys.exit(subprocess.call([sys.executable, "-m", "fume_jax.predict", *options]))
    cli.run(functools.partial(main, options))
