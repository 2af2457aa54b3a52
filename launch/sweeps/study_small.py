"""A study of simulated frames that fits on a laptop: 18 runs, FUME and five that differ in one thing, of three seeds.

    python -m datasets.synthetic_ogi --data_dir=data --name=demo
    python -m launch.sweep --sweep=launch/sweeps/study_small.py --parallel=2
    fume report --runs=runs/study_small --output=report

Each run trains as configs/demo.py does, half as long, and is compared with `reference`.
"""

from launch.plan import Sweep


def get_sweep() -> Sweep:
    return Sweep(
        config="demo",
        shared={"train.epochs": 6},
        entries={
            "reference": {},
            "fusion_concat": {"model.fusion": "concat"},
            "input_co2": {"model.gas": "co2"},
            "input_ch4": {"model.gas": "ch4"},
            "task_segmentation": {"model.tasks": "segmentation", "checkpoint.best_metric": "mean_iou"},
            "task_classification": {"model.tasks": "classification", "checkpoint.best_metric": "balanced_accuracy"},
        },
        seeds=range(3),
    )
