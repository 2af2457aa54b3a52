"""Collects what was tried, by area, and how much of it went wrong; `make soak` prints the table."""

import contextlib
from collections.abc import Iterator


class Tally:
    def __init__(self):
        self.rows = {}  # by area: number of cases, and a description of each that went wrong

    def add(self, area: str, wrong: str | None = None) -> None:
        row = self.rows.setdefault(area, [0, []])
        row[0] += 1
        row[1] += [wrong] if wrong else []

    @contextlib.contextmanager
    def case(self, area: str, what: str, *, go_on: bool = False) -> Iterator[None]:
        """Counts a case, which goes wrong by any error; with `go_on` the next one is tried first, see `check`."""
        try:
            yield
        except Exception as error:
            self.add(area, f"{what}: {type(error).__name__}: {error}"[:2000])
            if not go_on:
                raise
        else:
            self.add(area)

    def check(self, area: str) -> None:
        """Fails if a case of an area went wrong."""
        wrong = self.rows[area][1]
        assert not wrong, f"{len(wrong)} of {self.rows[area][0]} went wrong in {area}:\n" + "\n".join(wrong)

    def table(self) -> str:
        rows = [("area", "tried", "fine", "wrong"), ("---",) * 4]
        rows += [(area, n, n - len(wrong), len(wrong)) for area, (n, wrong) in sorted(self.rows.items())]
        counts = [(n, len(wrong)) for n, wrong in self.rows.values()]
        tried, wrong = map(sum, zip(*counts, strict=True))
        rows.append(("all", tried, tried - wrong, wrong))
        return "\n".join(f"| {' | '.join(map(str, row))} |" for row in rows)


# One for all tests of a process.
TALLY = Tally()
