"""Predicts a list of recordings in shares: `python -m launch.predict --recordings=LIST --output=DIR --shares=N`.

Each share is a `fume predict`, which takes the flags after `--`, such as `-- --workdir=runs/demo --save=overlays`. The
same command goes on with what is not done. See launch/README.md.
"""

import functools
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


def main(options: list[str]) -> int:
    """Predicts the list, or shows how far it is, with these arguments for each share; returns the exit code."""
    # Imported after the flags are parsed, so that --help and a mistake in a flag answer at once.
    from fume_jax.data.recording_list import read_recordings
    from launch import shares as own

    _check_engine()
    output = _OUTPUT.value
    recordings, folder = read_recordings(_RECORDINGS.value), Path(output) / own.FOLDER
    shares = own.divide(_RECORDINGS.value, output, recordings, _SHARES.value, options)
    names = [share.name for share in shares]
    if engines.STATUS.value:
        text, damaged = own.shares_table(folder, shares, engines.find_states(folder, names))
        print(text, own.summary(output, recordings), sep="\n\n")
        return PARTLY_DONE if damaged else DONE
    check_folder(output)
    own.check(shares[0])
    backend = engines.create_backend(folder, Path(output).absolute().name)
    if engines.DRY_RUN.value:
        print(backend.preview(shares))
        return DONE
    with lock(folder, doing="launching", flag="--output"), StopRequest() as stop:
        busy = _find_busy(folder, names)
        for share in shares:
            if share.name not in busy and share.is_stale(folder):
                status.forget_job(folder / share.name)
                share.write(folder)
        states = engines.launch(backend, shares, stop, "shares")
    print(own.shares_table(folder, shares, states)[0], own.summary(output, recordings), sep="\n\n")
    return own.exit_code(folder, states, stop.requested)


def _check_engine():
    """Raises UserError if the flags describe an engine that cannot run shares."""
    if engines.BACKEND.value in ("tpu", "cloud"):
        raise UserError(
            f"--backend={engines.BACKEND.value} does not predict: shares lock the table that they have in common, and "
            "a bucket has no locks. Copy the recordings to this machine, --backend=local, or to a disk that the nodes "
            "of a cluster share, --backend=slurm."
        )
    # Slurm would start the command once for each GPU and node.
    for flag in (engines.GPUS, engines.NODES) if engines.BACKEND.value == "slurm" else ():
        if (flag.value or 0) > 1:
            raise UserError(f"--{flag.name} is {flag.value}; a share has one GPU at most, so raise --shares instead.")


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
    sys.argv = words[:end]
    cli.run(functools.partial(main, words[end + 1 :]))
