"""Prints the size and cost of every model, and of FUME with every backbone: `fume summary`."""

import functools

from absl import flags

from fume_jax.runtime import cli

_HEIGHT = flags.DEFINE_integer("height", 480, "Height of the frames in pixels.", lower_bound=64)
_WIDTH = flags.DEFINE_integer("width", 640, "Width of the frames in pixels.", lower_bound=64)


def main() -> None:
    """Prints the table of models."""
    from flax import nnx

    from fume_jax.models import MODELS, Architecture, count_parameters, create_model
    from fume_jax.models.backbones import BACKBONES
    from fume_jax.models.macs import count_macs

    default, size = Architecture().backbone, f"at {_WIDTH.value}x{_HEIGHT.value}, one pair"
    print(f"{'model':<22}{'backbone':<24}{'parameters':>12}{'GMAC':>8}{'MB':>8}    {size}")
    rows = [(name, default) for name in MODELS]
    rows += [(name, backbone) for backbone in BACKBONES if backbone != default for name in ("fume", "fume_separate")]

    def create(name, backbone):
        return create_model(name, backbone=backbone, rngs=nnx.Rngs(0))

    for name, backbone in rows:
        model = nnx.eval_shape(functools.partial(create, name, backbone))
        parameters, macs = count_parameters(model), count_macs(model, _HEIGHT.value, _WIDTH.value)
        print(f"{name:<22}{backbone:<24}{parameters:>12,}{macs / 1e9:>8.2f}{4 * parameters / 1e6:>8.2f}")


if __name__ == "__main__":
    cli.run(main)
