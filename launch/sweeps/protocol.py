"""Protocol of a study: 90 runs, the main model, five baselines and all ablations of FUME, each with three seeds.

    python -m launch.sweep --sweep=launch/sweeps/protocol.py --set=data.path=DATASET
    fume report --runs=runs/protocol --output=report

Data, schedule and budget are the same for all. To the entries of baselines.py and ablations.py it adds the encoders and
the number of parts of a batch with their own statistics. All are compared with `reference`.
"""

from launch.plan import Sweep
from launch.sweeps import ablations, baselines

BACKBONES = ("mobilenet_v3_small", "resnet18", "resnet50_deeplabv3plus")


def get_sweep() -> Sweep:
    entries = {**ablations.get_sweep().entries, **baselines.get_sweep().entries}
    entries |= {f"backbone_{name}": {"config": f"fume:backbone_{name}"} for name in BACKBONES}
    entries |= {f"batch_norm_splits_{parts}": {"model.batch_norm_splits": parts} for parts in (2, 4)}
    return Sweep(entries=entries, seeds=range(3))
