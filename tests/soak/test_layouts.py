"""Larger layouts of processes and devices learn, read and count the same as one process with one device."""

import pytest

from tests.runtime import test_distributed as small

LAYOUTS = [(1, 1), (1, 8), (2, 4)]


@pytest.mark.soak
def test_every_layout_learns_reads_and_counts_the_same(tiny_dataset, tmp_path):
    small.train_together(tiny_dataset, tmp_path / "run", 2, 4)
    said = small.ask_layouts(tmp_path / "run", LAYOUTS)
    for layout in LAYOUTS:
        for check in (small.assert_same_steps, small.assert_same_examples, small.assert_same_counts):
            check(said, layout)
