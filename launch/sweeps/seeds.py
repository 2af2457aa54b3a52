"""Seeds 0 to 4 of FUME, 5 runs, which show how much scores vary by chance.

python -m launch.sweep --sweep=launch/sweeps/seeds.py
"""

from launch.plan import Sweep


def get_sweep() -> Sweep:
    return Sweep(entries={"fume": {}}, seeds=range(5))
