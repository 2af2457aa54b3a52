"""A file imports only from its own folder and from floors below; what lies on the lowest floors touches no system."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Every folder and file of the package, from the ground up; those of one line may not import each other.
FLOORS = (
    ("schema",),
    ("models", "learning"),
    ("interop",),
    ("runtime",),
    ("data",),
    ("config",),
    ("evaluation",),
    ("training",),
    ("inference",),
    ("main", "evaluate", "predict", "export", "convert", "summary", "app", "commands", "__main__"),
)
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
FILES = sorted(path for path in (ROOT / "fume_jax").rglob("*.py") if path != ROOT / "fume_jax" / "__init__.py")
# Pure folders: arrays in, arrays out.
PURE = ("schema", "models", "learning", "interop")
PURE_MAY_IMPORT = {"jax", "flax", "optax", "numpy", "scipy", "cv2", "fume_jax"}
PURE_MAY_IMPORT |= {"abc", "functools", "collections", "typing", "dataclasses", "re", "itertools", "math"}
TORCH_FILES = ("torch_encoders.py", "torch_model.py", "end_to_end.py", "onnx_model.py")
DATASETS_MAY_IMPORT = ("schema", "learning.augment", "runtime", "data", "evaluation.overlays")


def imports(path):
    """Dotted names of everything a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path):
    return path.relative_to(ROOT / "fume_jax").with_suffix("").parts[0]


def test_every_part_of_the_package_has_a_floor():
    assert {part_of(path) for path in FILES} == set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down(path):
    own = part_of(path)
    for name in imports(path):
        package, *rest = name.split(".")
        assert package not in {"configs", "datasets", "launch", "benchmarks", "tests", "tensorflow"}, name
        if package == "fume_jax" and rest[0] not in (own, "__version__"):
            assert FLOOR[rest[0]] < FLOOR[own], f"{own} imports {name}"
        if package in ("torch", "onnx", "onnxruntime", "openvino", "nncf"):
            assert own in ("interop", "inference"), name
        if own in PURE:
            extra = {"torch", "contextlib", "io", "logging", "warnings"} if path.name in TORCH_FILES else set()
            assert package in PURE_MAY_IMPORT | extra, name


def test_private_modules_of_jax_are_used_in_one_file():
    users = {path.name for path in FILES if any(name.startswith("jax._src") for name in imports(path))}
    assert users == {"watchdog.py"}


@pytest.mark.parametrize("folder", ["datasets", "launch", "benchmarks"])
def test_nothing_calls_what_calls(folder):
    for path in (ROOT / folder).rglob("*.py"):
        callers = {"datasets", "launch", "benchmarks"} - {folder} - ({"datasets"} if folder == "benchmarks" else set())
        assert not {name.split(".")[0] for name in imports(path)} & callers, path


def test_datasets_know_no_model():
    for path in (ROOT / "datasets").rglob("*.py"):
        for name in imports(path):
            if name.startswith("fume_jax."):
                assert name.removeprefix("fume_jax.").startswith(DATASETS_MAY_IMPORT), name
