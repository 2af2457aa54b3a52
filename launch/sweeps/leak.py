"""What splits that share recordings do to scores: the same model on the honest and on the leaking published dataset.

    python -m datasets.synthetic_ogi --data_dir=data --name=published --width=160 --height=120
    python -m datasets.synthetic_ogi --data_dir=data --name=published_leaking --width=160 --height=120
    python -m launch.sweep --sweep=launch/sweeps/leak.py --parallel=2

These are 2 runs. Their test splits differ, so the table of `--status` has the scores, and nothing compares the runs.
"""

from launch.plan import Sweep


def get_sweep() -> Sweep:
    return Sweep(
        config="demo",
        shared={"train.epochs": 2, "eval.every_epochs": 2, "optimizer.warmup_epochs": 0.5},
        entries={
            "honest": {"data.path": "data/synthetic_ogi/published_160x120/3.0.0"},
            "leaking": {"data.path": "data/synthetic_ogi/published_leaking_160x120/3.0.0"},
        },
    )
