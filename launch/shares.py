"""Shares of a list of recordings, each of which one `fume predict --share=K/N` predicts."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from fume_jax.data.recording_list import Recording
from fume_jax.inference.recordings import TABLE, read_result, sum_codes
from fume_jax.runtime.cli import canonical_arguments
from fume_jax.runtime.errors import DONE, NOTHING_DONE, PARTLY_DONE, RUN_AGAIN, UserError
from fume_jax.runtime.files import replace_text
from fume_jax.runtime.names import printable
from fume_jax.schema import GASES
from launch import status, table
from launch.command import Needs

# Folder in that of the results, which holds the folders of the shares.
FOLDER = ".shares"
# Flags that a share has of its own.
_OWN_FLAGS = ("recordings", "output", "share")
# Flags of `fume predict` that name a model by its path.
_MODEL_FLAGS = ("workdir", "model")
# Folders of the checkout that those of a bucket stand in for on a cloud: of lists and frames, of results, of models.
_RECORDINGS, _PREDICTIONS, _RUNS = "recordings", "predictions", "runs"


@dataclasses.dataclass(frozen=True)
class Share:
    """Share number `index` of `count` of the recordings of a list; see `launch.command.Command`, which it is."""

    index: int
    count: int
    path: str  # of the list
    output: str
    options: Sequence[str]  # further arguments of `fume predict`
    recordings: Sequence[Recording]  # those of the share

    @property
    def name(self) -> str:
        """Name of the folder of its state and log, which differs from those of shares of another count."""
        return f"{self.index}-of-{self.count}"

    def arguments(self, workdir: str | Path, platform: str | None, *, alone: bool = False) -> list[str]:
        """Returns the arguments of `python` that predict the share, on the best device there is, in one process."""
        del workdir, platform, alone
        own = [f"--recordings={self.path}", f"--output={self.output}", f"--share={self.index}/{self.count}"]
        return ["-m", "fume_jax.predict", *own, *self.options]

    @property
    def needs(self) -> Needs:
        """The list and the model, and what reads the files of cameras and of any model."""
        files = (self.path, *self.models.values())
        return Needs(mounted=(_RECORDINGS, _PREDICTIONS, _RUNS), files=files, extras=("camera", "onnx"))

    @property
    def models(self) -> dict[str, str]:
        """Paths of the model by the flags that name it; empty for the pretrained one."""
        values = flags.FlagValues()
        for name in _MODEL_FLAGS:
            flags.DEFINE_string(name, None, "", flag_values=values)
        values(["", *canonical_arguments(self.options)], known_only=True)
        return {name: values[name].value for name in _MODEL_FLAGS if values[name].value}

    def is_other(self, folder: Path) -> bool:
        """Returns whether the share in the folder is another one, of other recordings or flags."""
        path = folder / self.name / "share.json"
        return not path.exists() or path.read_text() != self._description

    def lacks_results(self) -> bool:
        """Returns whether a recording has no result."""
        return any(read_result(Path(self.output), recording) is None for recording in self.recordings)

    def write(self, folder: Path) -> None:
        """Writes what the share is, by which `is_other` knows it again."""
        (folder / self.name).mkdir(parents=True, exist_ok=True)
        replace_text(folder / self.name / "share.json", self._description)

    @property
    def _description(self):
        recordings = [dataclasses.asdict(recording) for recording in self.recordings]
        return json.dumps({"options": list(self.options), "recordings": recordings}, indent=1) + "\n"


def divide(path: str, output: str, recordings: Sequence[Recording], count: int, options: Sequence[str]) -> list[Share]:
    """Divides a list into shares, of which none is empty: there are at most as many as recordings."""
    count = min(count, len(recordings))
    return [Share(k, count, path, output, tuple(options), recordings[k::count]) for k in range(count)]


def check(share: Share) -> None:
    """Raises UserError, in the words of `fume predict`, unless it takes the options of the share."""
    for option in share.options:
        flag = option.partition("=")[0].lstrip("-")
        if option.startswith("-") and flag in _OWN_FLAGS:
            raise UserError(f"After -- there is {option}; --{flag} is for the whole list or not at all.")
    # A process has one set of flags, and this one has other flags of the same names.
    command = [sys.executable, *share.arguments("", None), "--only_check_args"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise UserError(f"fume predict says: {result.stderr.strip().removeprefix('error: ')}")


def check_places(share: Share, recordings: Sequence[Recording]) -> None:
    """Raises UserError unless all that is read and written lies in the folders that a bucket stands in for."""
    places = [("--recordings", share.path, _RECORDINGS), ("--output", share.output, _PREDICTIONS)]
    places += [(f"--{name}", path, _RUNS) for name, path in share.models.items()]
    for recording in recordings:
        paths = {gas: getattr(recording, gas) for gas in GASES}
        places += [(f"{gas} of {printable(recording.id)}", path, _RECORDINGS) for gas, path in paths.items() if path]
    faults = [
        f"{what} is {printable(path)}, expected a path in {folder}/"
        for what, path, folder in places
        if Path(os.path.normpath(path)).parts[0] != folder
    ]
    if faults:
        raise UserError(
            "Machines of a cloud have the folders of the bucket that stand in for those of the checkout: "
            f"{'; '.join(faults)}. Move it there, and copy it to the bucket; see launch/README.md."
        )


def shares_table(folder: Path, shares: Sequence[Share], states: Mapping[str, str]) -> tuple[str, list[str]]:
    """Returns the table of shares, whose folders are in `folder`, and the names of those whose files are damaged."""
    by_name = {share.name: share for share in shares}

    def cells(own):
        share = by_name[own.name]
        codes = [found["code"] for found in _results(share.output, share.recordings).values()]
        return f"{len(codes)}/{len(share.recordings)}", str(codes.count(NOTHING_DONE))

    return table.status_table(folder, states, noun="share", columns=("recordings", "failed"), cells=cells)


def summary(output: str, recordings: Sequence[Recording]) -> str:
    """Returns the place of the table of results, and a line for each recording that could not be predicted in full."""
    results, path = _results(output, recordings), Path(output) / TABLE
    lines = [f"{path}: {len(results)} of {len(recordings)} recordings"]
    for name, found in results.items():
        if found["code"] == NOTHING_DONE:
            lines.append(f"failed: {printable(name)}: {found['fault']}")
        elif found["code"] == PARTLY_DONE:
            skipped = found.get("skipped")
            reason = f"{skipped} frames were skipped" if skipped else "some files could not be made"
            lines.append(f"in part: {printable(name)}: {reason}")
    return "\n".join(lines)


def exit_code(folder: Path, states: Mapping[str, str], stopped: bool) -> int:
    """Returns the exit code of all shares together, as `fume predict` has it; `DONE` while a cluster has some."""
    if stopped or status.STOPPED in states.values():
        return RUN_AGAIN
    if not set(states.values()) <= {status.DONE, status.FAILED}:
        return DONE
    return sum_codes(_code(folder / name, state) for name, state in states.items())


def _code(workdir, state):
    last, job = status.read_status(workdir), status.read_job(workdir)
    if last is None or last.job != job.id:  # a job on a cloud leaves none here
        return DONE if state == status.DONE else NOTHING_DONE
    return last.exit_code


def _results(output, recordings):
    found = {recording.id: read_result(Path(output), recording) for recording in recordings}
    return {name: result for name, result in found.items() if result is not None}
