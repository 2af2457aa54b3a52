"""Larger layouts of processes and devices, and longer runs of them."""

import signal

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


# JAX hears of each process every 75 s, and crashes if it misses that twice.
@pytest.mark.soak
@pytest.mark.parametrize("seconds", [15, 35, 55])
def test_a_process_that_hangs_is_named_whenever_it_does(tiny_dataset, tmp_path, seconds):
    long = ["--config.train.epochs=4000", "--config.eval.every_epochs=4000", "--config.checkpoint.every_epochs=4000"]
    small.assert_named(tiny_dataset, tmp_path, signal.SIGSTOP, small.HANGS, *long, seconds=seconds)
