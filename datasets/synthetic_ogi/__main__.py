"""Renders the dataset: `python -m datasets.synthetic_ogi --data_dir=data --name=demo`."""

import contextlib
import dataclasses
import io

from absl import flags

from fume_jax.runtime import cli

_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of prepared datasets.")
_NAME = flags.DEFINE_string("name", "demo", "Which one to render; see datasets/synthetic_ogi/README.md.")
_SEED = flags.DEFINE_integer("seed", 0, "Other recordings of the same kind.", lower_bound=0)
_HEIGHT = flags.DEFINE_integer("height", None, "Of the frames, pixels, if not as named.", lower_bound=48)
_WIDTH = flags.DEFINE_integer("width", None, "Of the frames, pixels, if not as named.", lower_bound=64)


def main() -> None:
    # After the flags are parsed, so that --help answers at once.
    import tensorflow_datasets as tfds

    from datasets.synthetic_ogi.synthetic_ogi import SyntheticOgi, config_named

    config = _changed(config_named(_NAME.value))
    tfds.disable_progress_bar()  # the builder has its own
    builder = SyntheticOgi(config=config, data_dir=_DATA_DIR.value, file_format="array_record")
    print(f"Rendering {builder.info.full_name} into {builder.data_dir}, unless it is there; nothing is downloaded.")
    # TFDS says otherwise on standard output, whatever the dataset.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    for split, info in builder.info.splits.items():
        print(f"  {split:<6} {info.num_examples:6d} pairs  {info.num_bytes / 1e6:8.1f} MB")
    for name, value in builder.info.metadata["bounds"].items():
        print(f"  {name:<40} {value:.3f}")


def _changed(config):
    """The named config with another size or seed, which its name then says."""
    size = _HEIGHT.value or config.height, _WIDTH.value or config.width
    name = config.name
    if size != (config.height, config.width):
        name += f"_{size[1]}x{size[0]}"
    if _SEED.value:
        name += f"_seed{_SEED.value}"
    if name == config.name:
        return config
    return dataclasses.replace(config, name=name, height=size[0], width=size[1], seed=_SEED.value)


if __name__ == "__main__":
    cli.run(main)
