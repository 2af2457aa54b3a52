"""Runs a command by its name: `fume NAME ...` or `python -m fume_jax NAME ...`.

A command is a module with flags and a `main` that calls one function. Most lie beside this file, where `python -m
fume_jax.main` (`train`), `python -m fume_jax.predict` and so on run them; further ones belong in `fume_jax/commands/`.
"""

import difflib
import runpy
import sys
from pathlib import Path

from fume_jax.runtime.errors import NOTHING_DONE, missing_package

# The module and purpose of each command, in the order of use.
COMMANDS = {
    "train": ("fume_jax.main", "Train a model, or resume a run."),
    "evaluate": ("fume_jax.evaluate", "Score the best checkpoint of a run again."),
    "predict": ("fume_jax.predict", "Segment and classify images, folders and videos."),
    "watch": ("fume_jax.commands.watch", "Predict beside cameras, as their frames come."),
    "review": ("fume_jax.commands.review", "Choose frames to label next."),
    "import": ("datasets.fume_ogi.import_labels", "Import labels of annotation tools, to train on them."),
    "app": ("fume_jax.app", "Try a model on a web page."),
    "export": ("fume_jax.export", "Write a model as ONNX, OpenVINO, PyTorch, StableHLO or small weights."),
    "benchmark": ("fume_jax.commands.benchmark", "Compare the formats of a model on this machine."),
    "convert": ("fume_jax.convert", "Convert a PyTorch checkpoint to a run folder."),
    "report": ("launch.report", "Draw tables and figures of many runs, on one page."),
    "summary": ("fume_jax.summary", "List the models with their sizes and costs."),
}
_LIST = "\n".join(f"  {name:<10}{purpose}" for name, (_, purpose) in COMMANDS.items())
HELP = f"usage: fume COMMAND --OPTION=VALUE ...\n\n{_LIST}\n\n`fume COMMAND --help` lists the options of a command."


def main() -> None:
    """Runs the command that the first argument names."""
    name, *arguments = sys.argv[1:] or [""]
    if name in ("--help", "-h", "help", "--helpfull"):
        print(HELP)
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        wrong = f"there is no command {name!r}" + (f"; did you mean {near[0]!r}?" if near else "") if name else ""
        print(f"error: {wrong or 'name a command'}\n\n{HELP}", file=sys.stderr)
        sys.exit(NOTHING_DONE)
    module, _ = COMMANDS[name]
    if not module.startswith("fume_jax."):
        checkout = Path(__file__).parents[1]
        if not (checkout / module.replace(".", "/")).with_suffix(".py").is_file():
            print(f"error: fume {name} runs from a checkout of the project, not from {checkout}", file=sys.stderr)
            sys.exit(NOTHING_DONE)
        sys.path.insert(0, str(checkout))
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as error:  # of what the module imports before it parses its flags
        if (reason := missing_package(error)) is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(NOTHING_DONE)


if __name__ == "__main__":
    main()
