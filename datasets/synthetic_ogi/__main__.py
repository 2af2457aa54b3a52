"""Renders the dataset: `python -m datasets.synthetic_ogi --data_dir=data --name=demo`."""

import contextlib
import io

from absl import flags

from fume_jax import cli
from fume_jax.errors import UserError

_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared datasets.")
_NAME = flags.DEFINE_string("name", "demo", "Which size to render; see datasets/synthetic_ogi/README.md.")


def main() -> None:
    # After the flags are parsed, so that --help answers at once.
    import tensorflow_datasets as tfds

    from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi

    if _NAME.value not in SyntheticOgi.builder_configs:
        raise UserError(
            f"There is no size named {_NAME.value!r}; choose one of: {', '.join(SyntheticOgi.builder_configs)}."
        )
    tfds.disable_progress_bar()  # the builder has its own
    builder = SyntheticOgi(config=_NAME.value, data_dir=_DATA_DIR.value, file_format="array_record")
    print(f"Rendering {builder.info.full_name} into {builder.data_dir}, unless it is there; nothing is downloaded.")
    # TFDS says otherwise on standard output, whatever the dataset.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    for split, info in builder.info.splits.items():
        print(f"  {split:<6} {info.num_examples:6d} pairs  {info.num_bytes / 1e6:8.1f} MB")
    for name, value in builder.info.metadata["bounds"].items():
        print(f"  {name:<38} {value:.3f}")


if __name__ == "__main__":
    cli.run(main)
