"""Parses the flags of a module without running it: `python -m tests.parse_command MODULE ...`."""

import runpy
import sys

from fume_jax.runtime import cli

if __name__ == "__main__":
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="parsed")
    cli._parse_flags(sys.argv)
