"""Speed and waiting, by a clock of our own."""

import time

from fume_jax.training.logger import Throughput


def test_the_wait_for_input_is_told_from_the_work(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def batches():
        while True:
            now[0] += 1.0  # each takes a second to come
            yield {}

    pace = Throughput(batches(), pairs_a_step=8)
    assert pace.measure() == {}
    for _ in range(4):
        pace.next_batch()
        now[0] += 3.0  # and three to be trained on
    assert pace.measure() == {"pairs_per_second": 2.0, "input_wait": 0.25}
    now[0] += 100.0  # an evaluation
    pace.restart()
    pace.next_batch()
    assert pace.measure() == {"pairs_per_second": 8.0, "input_wait": 1.0}
