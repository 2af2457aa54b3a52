"""FUME in JAX: segments CO2 and CH4 plumes in pairs of infrared frames and classifies the pH state; see README.md."""

import importlib

__version__ = "0.1.0"

# The public names, each with its module.
_NAMES = {
    "Predictor": "inference.predictor",
    "Prediction": "inference.predictor",
    "UnreadableFrame": "data.images",
}
__all__ = sorted(_NAMES)


def __getattr__(name):
    # Imported on first use: commands answer --help without importing JAX.
    if name in _NAMES:
        return getattr(importlib.import_module(f"fume_jax.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
