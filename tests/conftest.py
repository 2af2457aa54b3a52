import os
from pathlib import Path

# Before JAX starts: eight devices to shard over, programs that compile fast, and a cache of them that test processes
# and runs share.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

import filelock
import jax
import pytest

import tests.tiny  # noqa: F401
from tests.commands import run, train_arguments

# A silent promotion of dtypes or ranks is a mistake of ours.
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def standard_promotion():
    """Lets optax promote dtypes and ranks, as it does of its counters and of scalars."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """Makes a folder for all test processes of this run: `once(name, make)` is its path, whoever calls `make(path)`."""
    # All workers of one run share the parent of their temporary folders.
    root = tmp_path_factory.getbasetemp()
    root = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root

    def shared(name, make):
        path = root / "shared" / name
        path.parent.mkdir(exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):
            if not (done := Path(f"{path}.done")).exists():
                make(path)
                done.touch()
        return path

    return shared


@pytest.fixture(scope="session")
def tiny_dataset(once):
    """Folder of the embedded dataset at its smallest."""
    from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi

    def render(path):
        SyntheticOgi(config="tiny", data_dir=path, file_format="array_record").download_and_prepare()

    return str(next(once("dataset", render).glob("*/tiny/*")))


@pytest.fixture(scope="session")
def trained(once, tiny_dataset):
    """A run of six epochs of six steps, to be left as it is, and what it printed."""

    def train(path):
        result = run("fume_jax.main", *train_arguments(tiny_dataset, path))
        assert result.returncode == 0, result.stderr
        Path(f"{path}.txt").write_text(result.stdout)

    workdir = once("trained", train)
    return workdir, Path(f"{workdir}.txt").read_text()
