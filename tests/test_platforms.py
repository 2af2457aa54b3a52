"""Every module imports where the system lacks what only Linux has, as on Windows and macOS."""

import subprocess
import sys

from tests.commands import ROOT

IMPORT_ALL = """
import importlib, os, pkgutil, signal, sys
import av, cv2, filelock, flax.nnx, grain, jax, matplotlib, optax, orbax.checkpoint, psutil, scipy, tensorboardX, tqdm
for module in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[module] = None
for name in ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGALRM", "SIGKILL"):
    delattr(signal, name)
for name in ("sync", "fork", "getuid", "sched_getaffinity", "posix_fadvise"):
    delattr(os, name)
from absl import flags
define = flags.FlagValues.__setitem__
def define_once(self, name, flag):
    if name not in self:  # two commands may have a flag of one name
        define(self, name, flag)
flags.FlagValues.__setitem__ = define_once
import fume_jax
for module in pkgutil.walk_packages(fume_jax.__path__, "fume_jax."):
    if module.name.rpartition(".")[2] not in ("__main__", "page", "torch_encoders", "torch_model", "onnx_model"):
        importlib.import_module(module.name)
print("imported", len([name for name in sys.modules if name.startswith("fume_jax.")]))
"""


def test_every_module_imports_without_what_only_linux_has():
    result = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[1]) > 50
