"""What splits that share recordings do to scores: the same model on the honest and on the leaking published dataset.

    python -m datasets.synthetic_ogi --data_dir=data --name=published --width=160 --height=120
    python -m datasets.synthetic_ogi --data_dir=data --name=published_leaking --width=160 --height=120
    python -m launch.sweep --sweep=launch/sweeps/leak.py --parallel=2

The two test splits differ, so the table of `--status` has the scores, and nothing compares the runs.
"""

from launch.plan import Sweep

EPOCHS = 2


def get_sweep() -> Sweep:
    shared = {"train.epochs": EPOCHS, "eval.every_epochs": EPOCHS, "optimizer.warmup_epochs": 0.5}
    entries = {
        "honest": {"data.path": "data/synthetic_ogi/published_160x120/3.0.0"},
        "leaking": {"data.path": "data/synthetic_ogi/published_leaking_160x120/3.0.0"},
    }
    return Sweep(config="demo", entries={name: shared | own for name, own in entries.items()})
