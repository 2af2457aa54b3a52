import fcntl
import os
from pathlib import Path

# Before JAX starts: eight devices to shard over, and compiled programs shared by test processes and runs.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import pytest


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """Folder of the embedded dataset at its smallest, rendered once for all test processes."""
    from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi

    # All workers of one run share the parent of their temporary folders.
    root = tmp_path_factory.getbasetemp()
    root = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root
    with open(root / "tiny.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builder = SyntheticOgi(config="tiny", data_dir=root, file_format="array_record")
        builder.download_and_prepare()
    return str(builder.data_dir)
