"""Probabilities in numpy alone, for prediction where scipy is not installed."""

import numpy as np

# Points of the integral in `student_quantile`.
POINTS = 100_001


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities [..., C] from logits [..., C], in their dtype."""
    values = np.exp(logits - logits.max(-1, keepdims=True))
    return values / values.sum(-1, keepdims=True)


def student_quantile(freedom: float, probability: float) -> float:
    """Returns the quantile of Student's t distribution at a probability from 0.5 to 0.99.

    `freedom` is real and at least 1. With x = sqrt(freedom) tan(a) the density is cos(a)^(freedom - 1), which is
    integrated over a. The relative error is below 1e-5 up to a million degrees of freedom.
    """
    # Beyond ten standard deviations of the angle nothing is left.
    angles = np.linspace(0, min(np.pi / 2, 10 / np.sqrt(freedom)), POINTS)
    density = np.maximum(np.cos(angles), 0) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp((2 * probability - 1) * below[-1], below, angles)))
