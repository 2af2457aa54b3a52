"""A file imports only from floors below its own."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"vocabulary", "errors"},
    {
        "models",
        "losses",
        "metrics",
        "train_step",
        "augment",
        "augment_host",
        "augment_device",
        "interop",
        "optimizer",
        "boundary",
        "uncertainty",
        "plume",
    },
    # What needs nothing but the floors before it, then what needs one of those.
    {
        "files",
        "allocator",
        "decoded",
        "resident",
        "input_pipeline",
        "guards",
        "sharding",
        "pictures",
        "frames",
        "cli",
        "weights",
        "ahead",
        "grey",
        "video",
        "stopping",
        "pace",
        "processes",
        "progress",
        "wandb_mirror",
    },
    {"checkpoint", "monitoring", "console", "charts"},
    {"settings"},
    {"build", "card"},
    {"evaluation", "examples", "backends", "conversion", "initialisation"},
    {"predictor"},
    {"prediction", "exporting", "page"},
    {"assessment", "reporting"},
    {"train"},
    {"model_flags"},
    {"main", "evaluate", "predict", "convert", "export", "app", "summary"},
]
FILES = sorted((ROOT / "fume_jax").rglob("*.py"))
DATASETS_MAY_IMPORT = {"vocabulary", "errors", "cli", "pictures", "frames", "guards", "ahead", "video"}
DATASETS_MAY_IMPORT |= {"augment", "augment_host"}
LEARNING_MAY_IMPORT = {"jax", "flax", "optax", "numpy", "scipy", "cv2", "fume_jax"}


def imports(path):
    """Dotted names of everything a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor(part):
    return next(i for i, parts in enumerate(FLOORS) if part in parts)


def part_of(path):
    relative = path.relative_to(ROOT / "fume_jax").with_suffix("")
    return relative.parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down(path):
    if path == ROOT / "fume_jax" / "__init__.py":
        return
    names = [name.split(".") for name in imports(path)]
    own = part_of(path)
    for name in names:
        assert name[0] not in {"configs", "datasets", "launch", "benchmarks", "tests", "tensorflow"}, name
        if name[0] == "fume_jax" and name[1] not in (own, "__version__"):
            assert floor(name[1]) <= floor(own), f"{own} imports {name[1]}"
    if floor(own) <= 1:
        standard = {"abc", "functools", "collections", "typing", "dataclasses", "re", "itertools", "math"}
        standard |= {"contextlib", "io", "logging", "warnings"}
        extra = {"torch"} if path.name in ("torch_model.py", "onnx_model.py") else set()
        assert {name[0] for name in names} <= LEARNING_MAY_IMPORT | standard | extra


def test_datasets_know_no_model():
    for path in (ROOT / "datasets").rglob("*.py"):
        for name in imports(path):
            if name.startswith("fume_jax"):
                assert name.split(".")[1] in DATASETS_MAY_IMPORT, name
