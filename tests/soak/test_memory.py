"""Memory stays where it is: over 5,000 steps with twenty evaluations."""

import threading
import time

import numpy as np
import psutil
import pytest

from tests.commands import start, train_arguments
from tests.soak.tally import TALLY


def resident_over_time(words, seconds=1.0):
    """Runs a command; MB that its processes hold, measured in regular intervals, and what it printed."""
    process, measured = start(*map(str, words)), []
    family = psutil.Process(process.pid)

    def measure():
        while process.poll() is None:
            try:
                members = [family, *family.children(recursive=True)]
                measured.append(sum(member.memory_info().rss for member in members) / 1e6)
            except psutil.Error:
                pass
            time.sleep(seconds)

    thread = threading.Thread(target=measure)
    thread.start()
    printed = process.communicate()[0]
    thread.join()
    assert process.returncode == 0, printed
    return np.array(measured)


def assert_level(measured, most=0.05):
    """The medians of the second and of the last quarter differ by little."""
    quarters = np.array_split(measured, 4)
    early, late = np.median(quarters[1]), np.median(quarters[3])
    assert late < (1 + most) * early, f"from {early:.0f} to {late:.0f} MB"


def check(tiny_dataset, folder, epochs, evaluations):
    options = [f"--config.train.epochs={epochs}", f"--config.eval.every_epochs={epochs // evaluations}"]
    options += ["--config.log.every_steps=100", "--config.data.num_workers=0"]
    with TALLY.case("memory", f"{6 * epochs:,} steps, {evaluations} evaluations"):
        words = ["fume_jax.main", *train_arguments(tiny_dataset, folder / "run"), *options]
        assert_level(resident_over_time(words, 0.2 if epochs < 100 else 1.0))


@pytest.mark.soak
def test_training_for_5000_steps_takes_no_more_memory(tiny_dataset, tmp_path):
    check(tiny_dataset, tmp_path, epochs=840, evaluations=20)
