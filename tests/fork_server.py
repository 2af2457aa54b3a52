"""Runs commands in processes forked from one that has imported the libraries: as real as any, without the seconds.

Reads requests, a JSON object a line, and answers each with a line of JSON:

- `argv` (module and arguments), `environment`, paths of the files that receive `stdout` and `stderr`, `seconds` after
  which the process is killed, `group` for a session of its own, and `terminated`, which sends it SIGTERM when it would
  parse its flags: the number of the process;
- `wait`, such a number: the exit code, once there is one;
- `poll`, such a number: the exit code, or null while it runs.
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


def run(argv, environment, stdout, stderr, seconds, group, terminated):
    """The forked process."""
    signal.alarm(seconds)
    if group:
        os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    jax.config.update("jax_platforms", environment.get("JAX_PLATFORMS"))  # which JAX read when it was imported
    if terminated:
        absl.app.run = lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    os.dup2(os.open(stdout, flags), 1)
    os.dup2(1 if stderr == stdout else os.open(stderr, flags), 2)
    # Those of the server remember whether they could be seeked.
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
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


def start(request):
    child = os.fork()
    if child == 0:
        run(**request)
    return child


def poll(pid, options=os.WNOHANG):
    ended, status = os.waitpid(pid, options)
    return os.waitstatus_to_exitcode(status) if ended else None


if __name__ == "__main__":
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = poll(request["wait"], options=0)
        elif "poll" in request:
            answer = poll(request["poll"])
        else:
            answer = start(request)
        print(json.dumps(answer), flush=True)
