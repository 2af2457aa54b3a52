"""How much scores of FUME vary by chance: 5 runs, by seeds 0 to 4.

python -m launch.sweep --sweep=launch/sweeps/seeds.py
"""

from launch.plan import Sweep


def get_sweep() -> Sweep:
    """The published recipe alone."""
    return Sweep(entries={"fume": {}}, seeds=range(5))
