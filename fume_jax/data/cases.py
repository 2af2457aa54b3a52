"""Names of single frames of a split, for files that go to other programs and come back."""

import re
from typing import NamedTuple

from fume_jax.schema import GASES, SPLITS

# The number of nnU-Net's channel may stand behind the gas, or before it where a program has put the gas at the end.
_CASE = re.compile(rf"({'|'.join(SPLITS)})_(\d{{1,9}})(?:_0000)?(?:_({'|'.join(GASES)})(?:_0000)?)?")


class Case(NamedTuple):
    """An example of a split by its position, from 0, or with a `gas` one frame of it."""

    split: str
    index: int
    gas: str = ""

    @property
    def name(self) -> str:
        """The name without suffix: `test_00012` of a pair, `test_00012_co2` of a frame."""
        return f"{self.split}_{self.index:05d}" + (f"_{self.gas}" if self.gas else "")


def parse_case(name: str) -> Case | None:
    """Returns what a name without suffix is of, None if it is no `Case.name`.

    nnU-Net's number of the channel in it, `_0000`, does not count, nor does the number of zeros before the position.
    """
    found = _CASE.fullmatch(name)
    return found and Case(found[1], int(found[2]), found[3] or "")
