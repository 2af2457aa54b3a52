"""Exports a trained model and compares the export with it: `fume export --workdir=runs/demo --format=onnx`."""

from pathlib import Path

from absl import flags

from fume_jax.inference.formats import FORMATS, PRETRAINED, exported_file
from fume_jax.runtime import cli
from fume_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run to export; the pretrained model if unset.")
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    list(FORMATS),
    "Format to write. " + "; ".join(f"{name}: {format.description}" for name, format in FORMATS.items()) + ".",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "File to write, or folder for weights; WORKDIR/model.* if unset and the model is the run's own."
)
_DYNAMIC_SIZE = flags.DEFINE_bool(
    "dynamic_size", False, "Write ONNX that takes frames of any size, not only of the training's."
)
_END_TO_END = flags.DEFINE_bool(
    "end_to_end", False, "Write ONNX that takes frames as they are, uint8 of any size, and gives masks of that size."
)
_INT8 = flags.DEFINE_bool(
    "int8", False, "Write ONNX or OpenVINO that computes in 8 bits; refused if it does worse on the validation split."
)
_TRITON = flags.DEFINE_string(
    "triton", None, "Folder to write the ONNX file to once more, as a model of NVIDIA's Triton; with --end_to_end."
)
_GAS_BIAS = flags.DEFINE_float(
    "gas_bias", 0.0, "Added to the logit of gas: below 0 less is called gas, above 0 more. The card has no scores."
)
_GAS_MARGIN = flags.DEFINE_float(
    "gas_margin",
    None,
    "Logits by which gas must lead somewhere in a frame for any to be found there, in place of "
    "config.model.gas_margin; 0 for none. The card has no scores.",
)
_DATA = flags.DEFINE_string("data", None, "Folder of the dataset to compare on; that of the run if unset.")


def main() -> None:
    """Exports as the flags say."""
    from fume_jax.evaluation.tables import aligned
    from fume_jax.inference.exporter import export_run
    from fume_jax.inference.triton import write_repository

    if not _OUTPUT.value and (_WORKDIR.value is None or _FORMAT.value == "weights"):
        raise UserError("Expected a path to write to: add --output=PATH.")
    changes = {"gas_bias": _GAS_BIAS.value != 0, "gas_margin": _GAS_MARGIN.value is not None, "int8": _INT8.value}
    if not _OUTPUT.value and (given := [f"--{name}" for name, changed in changes.items() if changed]):
        raise UserError(
            f"Expected a path to write to: add --output=PATH. The file in {_WORKDIR.value} is the run as it is, and "
            f"{' and '.join(given)} would make another model of it."
        )
    workdir = _WORKDIR.value or PRETRAINED
    path = Path(_OUTPUT.value) if _OUTPUT.value else exported_file(workdir, _FORMAT.value)
    if _TRITON.value and not _END_TO_END.value:
        raise UserError("--triton needs --end_to_end: a server gets frames as they are.")
    options = {"dynamic_size": _DYNAMIC_SIZE.value, "end_to_end": _END_TO_END.value}
    options |= {"int8": _INT8.value, "data": _DATA.value, "gas_bias": _GAS_BIAS.value}
    options["gas_margin"] = _GAS_MARGIN.value
    parities, source = export_run(workdir, _FORMAT.value, path, **options)
    rows = [("", "max error", "same class", "of")]
    rows += [(p.output, f"{p.max_error:.1e}", f"{p.agreement:.4%}", f"{p.decisions:,}") for p in parities]
    print(f"Wrote {path}. Compared with the model, with both gases and with one, on {source}:\n{aligned(rows)}")
    if _TRITON.value:
        print(f"Wrote {write_repository(Path(_TRITON.value), path)} for Triton.")


if __name__ == "__main__":
    cli.run(main)
