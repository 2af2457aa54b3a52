"""Prints the size and cost of every model: `fume summary`."""

from absl import flags

from fume_jax.runtime import cli

_HEIGHT = flags.DEFINE_integer("height", 480, "Height of the frames in pixels.", lower_bound=64)
_WIDTH = flags.DEFINE_integer("width", 640, "Width of the frames in pixels.", lower_bound=64)


def main() -> None:
    """Prints the table of models."""
    from flax import nnx

    from fume_jax.models import MODELS, count_parameters, create_model
    from fume_jax.models.macs import count_macs

    print(f"{'model':<22}{'parameters':>12}{'GMAC':>8}{'MB':>7}    at {_WIDTH.value}x{_HEIGHT.value}, one pair")
    for name in MODELS:
        model = nnx.eval_shape(lambda name=name: create_model(name, rngs=nnx.Rngs(0)))
        parameters, macs = count_parameters(model), count_macs(model, _HEIGHT.value, _WIDTH.value)
        print(f"{name:<22}{parameters:>12,}{macs / 1e9:>8.2f}{4 * parameters / 1e6:>7.2f}")


if __name__ == "__main__":
    cli.run(main)
