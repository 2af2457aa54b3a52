"""Learning rate, weight decay and batch size of FUME, each with each: 36 runs.

    python -m launch.sweep --sweep=launch/sweeps/hyperparameters.py

The published recipe, 1e-3, 1e-4 and 8, is one of them.
"""

from launch.plan import Sweep


def get_sweep() -> Sweep:
    """A grid, steps of about three."""
    return Sweep(
        grid={
            "optimizer.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2],
            "optimizer.weight_decay": [1e-5, 1e-4, 1e-3],
            "train.batch_size": [8, 16, 32],
        },
        names={"optimizer.learning_rate": "rate", "optimizer.weight_decay": "decay", "train.batch_size": "batch"},
    )
