"""Baselines: 5 runs of the five models that FUME is compared with.

    python -m launch.sweep --sweep=launch/sweeps/baselines.py

The models are early fusion, two tasks on single frames, each task alone, and single frames of a known gas. The other
models of `fume summary` are variants of FUME and belong to the ablations; FUME itself is in seeds.py.
"""

from launch.plan import Sweep

BASELINES = ("early_fusion", "multi_task", "segmentation_only", "classification_only", "gas_aware")


def get_sweep() -> Sweep:
    return Sweep(entries={name: {"config": f"fume:{name}"} for name in BASELINES})
