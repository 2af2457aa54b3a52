"""Runs commands in processes forked from one that has imported the libraries: as real as any, without the seconds.

Reads requests, a JSON object a line: `argv` (module and arguments), `environment`, paths of the files that receive
`stdout` and `stderr`, and `terminated`, which sends the process SIGTERM when it would parse its flags. It answers each
with the exit code.
"""

import json
import os
import runpy
import signal
import sys
import warnings

# Imported once. None of them touches a device or starts a thread.
import absl.app
import av  # noqa: F401
import cv2  # noqa: F401
import flax.nnx  # noqa: F401
import grain  # noqa: F401
import jax
import matplotlib.figure  # noqa: F401
import optax  # noqa: F401
import orbax.checkpoint  # noqa: F401
import scipy.ndimage
import scipy.spatial  # noqa: F401
import tensorboardX  # noqa: F401
import tensorflow_datasets  # noqa: F401

import tests.tiny  # noqa: F401

warnings.filterwarnings("ignore", "os.fork")


def run(argv, environment, stdout, stderr, terminated):
    """The forked process."""
    signal.alarm(600)  # a command that hangs is killed, as by the timeout of `run_fresh`
    os.environ.clear()
    os.environ.update(environment)
    jax.config.update("jax_platforms", environment.get("JAX_PLATFORMS"))  # which JAX read when it was imported
    if terminated:
        absl.app.run = lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = argv
    code = 1
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
