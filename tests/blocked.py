"""Runs Python where nothing can be imported but the checkout and what a requirements file installs.

`python -m tests.blocked deploy/requirements.txt CODE ARGUMENT ...` runs CODE with those arguments.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

OWN = {"fume_jax", "configs", "datasets", "launch", "sitecustomize"}


def installed_by(requirements):
    """Names of the packages of Python that a requirements file installs, with all that these need."""
    lines = (line.partition("#")[0].strip() for line in Path(requirements).read_text().splitlines())
    todo, found = [line for line in lines if line], set()
    while todo:
        requirement, _, marker = todo.pop().partition(";")
        name = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
        if name not in found and "extra" not in marker:
            found.add(name)
            todo += importlib.metadata.requires(name) or []
    owners = importlib.metadata.packages_distributions()
    return {package for package, names in owners.items() if {n.lower().replace("_", "-") for n in names} & found}


class Blocker:
    """Hides every package that is not among `allowed`, as if it were not installed."""

    def __init__(self, allowed):
        self._allowed = allowed | OWN | set(sys.stdlib_module_names)

    def find_spec(self, name, path=None, target=None):
        package = name.partition(".")[0]
        if package not in self._allowed and not package.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=package)


if __name__ == "__main__":
    _, requirements, code, *arguments = sys.argv
    allowed = installed_by(requirements)
    foreign = {name.partition(".")[0] for name in sys.modules} & {"numpy", "jax", "scipy"}
    assert not foreign, foreign
    sys.meta_path.insert(0, Blocker(allowed))
    sys.argv = ["fume", *arguments]
    exec(code, {"__name__": "__main__"})
