"""Renders a dataset: `python -m datasets.synthetic_ogi --data_dir=data --name=demo`."""

import contextlib
import dataclasses
import io

from absl import flags

from fume_jax.runtime import cli

_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder that receives the prepared dataset.")
_NAME = flags.DEFINE_string("name", "demo", "Name of the dataset, one of those in datasets/synthetic_ogi/README.md.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the recordings; another seed renders others.", lower_bound=0)
_HEIGHT = flags.DEFINE_integer("height", None, "Frame height in pixels; default: that of the dataset.", lower_bound=48)
_WIDTH = flags.DEFINE_integer("width", None, "Frame width in pixels; default: that of the dataset.", lower_bound=64)


def main() -> None:
    # Imported after the flags are parsed, so that --help answers at once.
    import tensorflow_datasets as tfds

    from datasets.paired_frames import preparing
    from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi, config_named

    config = config_named(_NAME.value)
    height, width, name = _HEIGHT.value or config.height, _WIDTH.value or config.width, config.name
    if (height, width) != (config.height, config.width):
        name += f"_{width}x{height}"
    if _SEED.value:
        name += f"_seed{_SEED.value}"
    if name != config.name:
        config = dataclasses.replace(config, name=name, height=height, width=width, seed=_SEED.value)
    tfds.disable_progress_bar()  # the builder has its own
    with preparing(_DATA_DIR.value, SyntheticOgi.name, name, flag="--data_dir"):
        builder = SyntheticOgi(config=config, data_dir=_DATA_DIR.value, file_format="array_record")
        print(f"Rendering {builder.info.full_name} into {builder.data_dir}, unless it is there; nothing is downloaded.")
        # TFDS reports a download on standard output, even where there is none.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare()
    for split, info in builder.info.splits.items():
        print(f"  {split:<6} {info.num_examples:6d} pairs  {info.num_bytes / 1e6:8.1f} MB")
    for name, value in builder.info.metadata["bounds"].items():
        print(f"  {name:<40} {value:.3f}")


if __name__ == "__main__":
    cli.run(main)
