"""Builds the package with the configs in it, so that `fume train --config=demo` works without a checkout."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies `configs/` to `fume_jax/assets/configs`; an editable install reads the checkout's own."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "fume_jax", "assets", "configs")
            shutil.copytree("configs", target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
