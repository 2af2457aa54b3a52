"""Which examples a report shows."""

import numpy as np

from fume_jax.evaluation.report import _chosen


def table(loss, recordings):
    return {
        "example_index": np.arange(len(loss)),
        "recording_index": np.array(recordings),
        "loss": np.array(loss, float),
    }


def test_best_and_worst_are_one_of_a_recording_in_order_of_loss():
    chosen = _chosen(table([0.5, 0.1, 0.2, 0.9, 0.8, np.nan], [1, 2, 2, 3, 3, 4]))
    assert chosen["best"].tolist() == [1, 0, 4]
    assert chosen["worst"].tolist() == [3, 0, 2]
    assert chosen["overlays"].tolist() == [0, 1, 2, 3, 4, 5]


def test_where_no_example_has_a_loss_none_is_best():
    assert set(_chosen(table([np.nan, np.nan], [1, 2]))) == {"overlays"}
