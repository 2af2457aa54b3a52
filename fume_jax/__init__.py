"""FUME in JAX: segments CO2 and CH4 plumes in pairs of infrared frames and tells the pH state; see README.md."""

__version__ = "0.1.0"

__all__ = ["Predictor"]


def __getattr__(name):
    # When it is first asked for: commands answer --help without importing JAX.
    if name == "Predictor":
        from fume_jax.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
