"""Writes a trained model in another format, and checks it there.

    python -m fume_jax.export --workdir=runs/demo --format=onnx

| format | what |
| --- | --- |
| onnx | for ONNX Runtime and what else reads ONNX; `--dynamic_size` takes frames of any size |
| torch | a checkpoint file that the PyTorch implementation loads |
| stablehlo | for JAX on CPUs, GPUs and TPUs without this package: `model.bin` in the zip file, see `jax.export` |
| weights | config, metrics and half-precision weights, a folder that serves as `--workdir`, a tenth of the size |
"""

from pathlib import Path

from absl import flags

from fume_jax import cli
from fume_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the model that is shipped if unset.")
_FORMAT = flags.DEFINE_enum("format", None, ["onnx", "torch", "stablehlo", "weights"], "What to write.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "File to write, or folder for weights; WORKDIR/model.* if unset.")
_DYNAMIC_SIZE = flags.DEFINE_bool("dynamic_size", False, "ONNX that takes frames of any size, not of the one trained.")
_DATA = flags.DEFINE_string("data", None, "Prepared dataset to check it on; that of the run if unset.")


def main() -> None:
    """Exports as the flags say."""
    from fume_jax.backends import exported_file
    from fume_jax.console import aligned
    from fume_jax.exporting import export_run
    from fume_jax.weights import SHIPPED

    if not _OUTPUT.value and (_WORKDIR.value is None or _FORMAT.value == "weights"):
        raise UserError("Say where to: --output=PATH.")
    workdir = _WORKDIR.value or SHIPPED
    path = Path(_OUTPUT.value) if _OUTPUT.value else exported_file(workdir, _FORMAT.value)
    options = {"dynamic_size": _DYNAMIC_SIZE.value, "data": _DATA.value}
    parities, source = export_run(workdir, _FORMAT.value, path, **options)
    rows = [("", "max error", "same class", "of")]
    rows += [(p.output, f"{p.max_error:.1e}", f"{p.agreement:.4%}", f"{p.decisions:,}") for p in parities]
    print(f"Wrote {path}. Beside the model, on {source}:\n{aligned(rows)}")


if __name__ == "__main__":
    cli.run(main)
