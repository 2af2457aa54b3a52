"""Hyperparameters of FUME: 36 runs, one for each combination of learning rate, weight decay and batch size.

    python -m launch.sweep --sweep=launch/sweeps/hyperparameters.py

One of them is the published recipe: 1e-3, 1e-4 and 8.
"""

from launch.plan import Sweep


def get_sweep() -> Sweep:
    return Sweep(
        grid={
            "optimizer.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2],
            "optimizer.weight_decay": [1e-5, 1e-4, 1e-3],
            "train.batch_size": [8, 16, 32],
        },
        names={"optimizer.learning_rate": "rate", "optimizer.weight_decay": "decay", "train.batch_size": "batch"},
    )
