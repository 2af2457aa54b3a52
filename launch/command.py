"""What engines run: commands with a name, such as the trainings of a sweep and the shares of a list of recordings."""

from pathlib import Path
from typing import Protocol


class Command(Protocol):
    """Describes a command, whose state and log are in the folder of its name."""

    @property
    def name(self) -> str:
        """Name of the folder."""

    def arguments(self, workdir: str | Path, platform: str | None, *, alone: bool = False) -> list[str]:
        """Returns the arguments of `python`.

        `workdir` is the folder of the name. `platform` is the kind of device that is given, if that is known. The
        command is `alone` if a launcher around it, such as Slurm, did not start it as one of several processes.
        """
