"""Compares the formats of a model on this machine: `fume benchmark --workdir=runs/demo --formats=all`.

It prints milliseconds for one pair, pairs per second in batches, the size of the file and the gas IoU of each.
"""

from pathlib import Path

from absl import flags

from fume_jax.inference.formats import PRETRAINED
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the pretrained model if unset.")
_FORMATS = flags.DEFINE_list(
    "formats", ["jax", "onnx"], "Formats to compare: all, or some of jax, onnx, openvino, torch, onnx-int8 and so on."
)
_MODEL = flags.DEFINE_list("model", [], "Exported files to compare with them.")
_DATA = flags.DEFINE_string("data", None, "Folder of the dataset for the gas IoU and 8 bits; that of the run if unset.")
_TURNS = flags.DEFINE_integer("turns", 20, "How often each is timed; all take turns.", lower_bound=1)


def main() -> int:
    """Benchmarks as the flags say; returns the exit code."""
    from fume_jax.inference.benchmark import VARIANTS, benchmark

    names = list(VARIANTS) if _FORMATS.value == ["all"] else [name for name in _FORMATS.value if name]
    if unknown := [name for name in names if name not in VARIANTS]:
        raise UserError(f"--formats={','.join(unknown)}: expected all, or some of {', '.join(VARIANTS)}.")
    files = [Path(path) for path in _MODEL.value]
    return benchmark(_WORKDIR.value or PRETRAINED, names, files, data=_DATA.value, turns=_TURNS.value)


if __name__ == "__main__":
    cli.run(main)
