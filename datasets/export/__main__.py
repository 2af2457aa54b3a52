"""Writes a prepared dataset for other programs: `python -m datasets.export --data=DIR --format=nnunet --output=DIR`.

Each frame of each gas becomes an image with a mask of its own. `cases.csv` says what each is of. What the other program
then predicts, `fume evaluate --predictions=DIR` scores.
"""

from absl import flags

from fume_jax.runtime import cli

_DATA = flags.DEFINE_string("data", None, "Folder of the prepared dataset.")
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    ["nnunet", "yolo", "mmseg"],
    "Layout to write: nnU-Net v2, Ultralytics YOLO segmentation, or mmsegmentation.",
)
_OUTPUT = flags.DEFINE_string("output", None, "New folder to write to.")
flags.mark_flags_as_required(["data", "format", "output"])


def main() -> None:
    # Imported after the flags are parsed, so that --help answers at once.
    from datasets.export.writing import export

    export(_DATA.value, _FORMAT.value, _OUTPUT.value)


if __name__ == "__main__":
    cli.run(main)
