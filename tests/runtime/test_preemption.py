"""Stopping a run from outside."""

import signal

import pytest

from fume_jax.runtime.preemption import Stopped, StopRequest


@pytest.mark.parametrize("number", StopRequest.SIGNALS)
def test_a_signal_while_processes_meet_counts_at_their_next_meeting(number):
    asked = []

    def agree(flag):
        asked.append(flag)
        if len(asked) == 2:
            signal.raise_signal(number)
        return flag

    with StopRequest(agree) as stop:
        assert [stop.agreed() for _ in range(4)] == [False, False, True, True]
    assert asked == [False, False, True, True]


def test_what_another_process_asks_for_stays():
    with StopRequest(agree=lambda _: True) as stop:
        assert stop.agreed() and stop.requested


def test_items_end_where_a_stop_is_agreed():
    taken = []
    with StopRequest() as stop, pytest.raises(Stopped):
        for item in stop.until(range(9)):
            taken.append(item)
            if item == 3:
                signal.raise_signal(signal.SIGTERM)
    assert taken == [0, 1, 2, 3]
