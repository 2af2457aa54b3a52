"""What engines run: commands with a name, such as the trainings of a sweep and the shares of a list of recordings."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


@dataclasses.dataclass(frozen=True)
class Needs:
    """Describes what a command needs of a machine that has the checkout, but of its ignored folders those of a bucket.

    Folders, files and extras are named as in the checkout.
    """

    copied: Sequence[str] = ()  # folders that the machine copies from the bucket before the command starts
    mounted: Sequence[str] = ()  # folders that are those of the bucket
    files: Sequence[str] = ()  # files and folders in them, without which the command cannot start
    extras: Sequence[str] = ()  # extras of the package, besides that of the device


class Command(Protocol):
    """Describes a command, whose state and log are in the folder of its name."""

    @property
    def name(self) -> str:
        """Name of the folder."""

    @property
    def needs(self) -> Needs:
        """What a machine of a cloud must have."""

    def arguments(self, workdir: str | Path, platform: str | None, *, alone: bool = False) -> list[str]:
        """Returns the arguments of `python`.

        `workdir` is the folder of the name. `platform` is the kind of device that is given, if that is known. The
        command is `alone` if a launcher around it, such as Slurm, did not start it as one of several processes.
        """
